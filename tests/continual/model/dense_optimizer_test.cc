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

}  // namespace
}  // namespace perennial::continual
