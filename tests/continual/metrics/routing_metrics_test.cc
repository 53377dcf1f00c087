// SPDX-License-Identifier: Apache-2.0
// Drift, leak and weight forgetting of retrievals written by hand, and of a layer that grows.
#include "perennial/continual/routing_metrics.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include "perennial/core/error.h"
#include "perennial/core/peer.h"

namespace perennial::continual {
namespace {

std::int64_t id(std::int64_t row, std::int64_t col) { return row << 32 | col; }

// 4 inputs, 1 head, 2 experts each.
at::Tensor then() {
  return torch::tensor(
             {id(0, 1), id(1, 1), id(0, 0), id(1, 0), id(0, 1), id(1, 1), id(0, 0), id(1, 2)})
      .view({4, 1, 2});
}

TEST(RoutingMetrics, DriftCountsInputsWhoseSetChanged) {
  EXPECT_EQ(routing_drift(then(), then()), 0);
  at::Tensor now = then();
  now[0][0][0] = id(1, 1);  // only the order changed
  now[0][0][1] = id(0, 1);
  EXPECT_EQ(routing_drift(then(), now), 0);
  now[2][0][1] = id(7, 0);
  now[3][0][0] = id(7, 0);
  now[3][0][1] = id(7, 1);
  EXPECT_EQ(routing_drift(then(), now), 0.5);
  // The same experts at other heads are a change.
  const at::Tensor heads = then().view({2, 2, 2});
  EXPECT_EQ(routing_drift(heads, heads.flip(1)), 1);
  EXPECT_EQ(routing_drift(heads, heads.flip(2)), 0);
}

TEST(RoutingMetrics, LeakCountsSlotsInNewerRows) {
  EXPECT_EQ(routing_leak(then(), 2), 0);
  EXPECT_EQ(routing_leak(then(), 1), 0.5);
  EXPECT_EQ(routing_leak(then(), 0), 1);
  at::Tensor now = then();
  now[1][0][1] = id(0xFFFFFFFF, 0);  // rows are unsigned
  EXPECT_EQ(routing_leak(now, 2), 0.125);
}

TEST(RoutingMetrics, WeightForgettingIsTheMeanLoss) {
  EXPECT_EQ(weight_forgetting({0.5, 0.75}, {0.25, 0.75}), 0.125);
  EXPECT_EQ(weight_forgetting({0.5}, {0.5}), 0);
  EXPECT_LT(weight_forgetting({0.5}, {0.75}), 0);
  EXPECT_THROW(weight_forgetting({}, {}), Error);
  EXPECT_THROW(weight_forgetting({0.5}, {0.5, 0.5}), Error);
}

TEST(RoutingMetrics, RefuseWhatIsNoRetrieval) {
  EXPECT_THROW(routing_drift(then(), then().view({2, 2, 2})), Error);
  EXPECT_THROW(routing_drift(then().view({8}), then().view({8})), Error);
  EXPECT_THROW(routing_leak(then().to(torch::kInt), 1), Error);
  EXPECT_THROW(routing_leak(torch::empty({0, 1, 2}, torch::kLong), 1), Error);
}

TEST(RoutingMetrics, OfALayerThatGrows) {
  PeerOptions options;
  options.d_in = options.d_out = 4;
  options.heads = 2;
  options.top_k = 3;
  options.d_key = 8;
  options.rows = options.cols = 4;
  options.query_norm = QueryNorm::none;
  const at::Tensor x = torch::randn({50, 4});
  for (const Routing routing : {Routing::isolated, Routing::shared}) {
    options.routing = routing;
    PeerImpl peer(options);
    const at::Tensor before = peer.retrieve(x, 0).ids;
    peer.freeze();
    peer.grow(8, 4);
    peer.unmask();
    const at::Tensor after = peer.retrieve(x, routing == Routing::isolated ? 0 : 1).ids;
    if (routing == Routing::isolated) {
      EXPECT_EQ(routing_drift(before, after), 0);
      EXPECT_EQ(routing_leak(after, 4), 0);
    } else {
      // Two thirds of the rows are new, and visible.
      EXPECT_GT(routing_drift(before, after), 0.5);
      EXPECT_GT(routing_leak(after, 4), 0.1);
    }
  }
}

}  // namespace
}  // namespace perennial::continual
