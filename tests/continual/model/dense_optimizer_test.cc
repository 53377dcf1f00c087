// SPDX-License-Identifier: Apache-2.0
#include "model/dense_optimizer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

constexpr std::int64_t kParameters = 1 << 16;  // more than one thread gets some

torch::Tensor moment(DenseOptimizer& optimizer, const char* entry) {
  storage::CommitRequest request;
  optimizer.add_to_commit(request);
  return tensor_from(value_or_throw(request.dense.at(entry).bytes()), entry);
}

bool keeps_denormals() {
  const volatile float denormal = 1e-39F;
  return denormal * 1.0F != 0;
}

TEST(DenseOptimizer, AdamKeepsNoDenormalMoments) {
  torch::Tensor x = at::full({kParameters}, 0.5F);
  TrainOptions options;
  options.optimizer = OptimizerKind::adam;
  DenseOptimizer optimizer(options);
  optimizer.set_parameters({{"x", x}});
  // Its square times 0.001 is denormal.
  x.mutable_grad() = at::full({kParameters}, 1e-19F);
  ASSERT_TRUE(keeps_denormals());
  optimizer.step();
  EXPECT_TRUE(keeps_denormals());
  EXPECT_EQ(moment(optimizer, "optimizer/x/v").count_nonzero().item<std::int64_t>(), 0);
  EXPECT_EQ(moment(optimizer, "optimizer/x/m").count_nonzero().item<std::int64_t>(), kParameters);
  EXPECT_TRUE(x.eq(0.5F).all().item<bool>());
}

// The first step of Adam is lr in the gradient's direction; the decay is lr times itself.
TEST(DenseOptimizer, AdamWDecaysApartFromTheGradient) {
  for (const double decay : {0.0, 0.25}) {
    torch::Tensor x = at::full({3}, 0.5F), still = at::full({2}, 0.5F);
    TrainOptions options;
    options.optimizer = OptimizerKind::adamw;
    options.weight_decay = decay;
    options.lr = 0.1;
    DenseOptimizer optimizer(options);
    optimizer.set_parameters({{"x", x}, {"still", still}});
    x.mutable_grad() = at::full({3}, 0.02F);
    EXPECT_NEAR(optimizer.squared_norm(), 3 * 0.02 * 0.02, 1e-9);
    optimizer.scale_lr(0.5);
    optimizer.step();
    EXPECT_NEAR(x[0].item<double>(), 0.5 * (1 - 0.05 * decay) - 0.05, 1e-6);
    EXPECT_TRUE(still.eq(0.5F).all().item<bool>());  // it has no gradient
  }
}

}  // namespace
}  // namespace perennial::continual
