// SPDX-License-Identifier: Apache-2.0
// The projections of GEM and A-GEM: optimality, and what the strategy makes of them.
#include "strategies/gem_projection.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <gtest/gtest.h>

#include "continual/strategies/strategy_driver.h"

namespace perennial::continual {
namespace {

torch::Tensor normals(std::uint32_t seed, std::int64_t rows, std::int64_t cols) {
  torch::Tensor values = torch::empty({rows, cols});
  kernels::fill_normal(seed, 0, 0, 0, 1,
                       {values.mutable_data_ptr<float>(), static_cast<std::size_t>(rows * cols)});
  return values;
}

TEST(GemProjection, TheDualSatisfiesItsOptimalityConditions) {
  for (std::uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    const std::int64_t t = 1 + seed % 12, width = 3 + seed % 30;
    const torch::Tensor g = normals(seed, t, width).to(at::kDouble);
    // Every third has two equal rows: only the ridge makes it definite.
    if (seed % 3 == 0 && t > 1) g[1].copy_(g[0]);
    const torch::Tensor p = g.mm(g.t()) + 1e-6 * torch::eye(t, at::kDouble);
    const torch::Tensor b = g.mv(normals(seed + 1000, 1, width)[0].to(at::kDouble));
    const double margin = seed % 2 == 0 ? 0.5 : 0;
    const std::vector<double> v = gem_dual(p, b, margin);
    const torch::Tensor slope = p.mv(torch::tensor(v, at::kDouble)) + b;
    const double scale = b.abs().max().item<double>() + p.abs().max().item<double>();
    for (std::int64_t i = 0; i < t; ++i) {
      const double above = v[static_cast<std::size_t>(i)] - margin;
      EXPECT_GE(above, 0);
      EXPECT_GE(slope[i].item<double>(), -1e-9 * scale);
      EXPECT_NEAR(above * slope[i].item<double>(), 0, 1e-7 * scale);
    }
  }
}

TEST(GemProjection, NoMemoryLossRisesAndNothingNearerWouldDo) {
  for (std::uint32_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(seed);
    const torch::Tensor memory = normals(seed, 1 + seed % 6, 40), g = normals(seed + 500, 1, 40)[0];
    const torch::Tensor projected = gem_projection(g, memory, 0);
    EXPECT_GE(memory.mv(projected).min().item<double>(), -1e-4);
    // Optimal: what was added is orthogonal to the result.
    EXPECT_NEAR((projected - g).dot(projected).item<double>(), 0, 1e-3);
    EXPECT_EQ(projected.is_same(g), memory.mv(g).min().item<double>() >= 0);
  }
}

TEST(GemProjection, OneMemoryIsAGem) {
  const torch::Tensor r = normals(1, 1, 40), g = -0.3 * r[0] + normals(2, 1, 40)[0];
  ASSERT_LT(r[0].dot(g).item<double>(), 0);
  const torch::Tensor expected = g - g.dot(r[0]) / r[0].dot(r[0]) * r[0];
  EXPECT_TRUE(torch::allclose(agem_projection(g, r[0]), expected, 1e-5, 1e-6));
  EXPECT_TRUE(torch::allclose(gem_projection(g, r, 0), expected, 1e-4, 1e-5));
  EXPECT_NEAR(agem_projection(g, r[0]).dot(r[0]).item<double>(), 0, 1e-4);
  EXPECT_TRUE(agem_projection(g, -r[0]).is_same(g));
}

TEST(GemProjection, GemKeepsTheProductsOfItsMemoriesPositive) {
  Driver driver(
      mlp_config("gem", [](RunConfig& c) { c.train.strategy_options.set("gem_margin", 0); }));
  for (std::int64_t step = 0; step < 3; ++step) driver.step(0, step, 0.5);
  const StateMap state(*driver.strategy);
  const torch::Tensor seen = state.tensors.at("gem/seen");
  EXPECT_EQ(seen[0].item<std::int64_t>(), 48);
  const Preprocessing& preprocessing = driver.stream.preprocessing();
  const torch::Tensor x = preprocessing.apply(state.tensors.at("gem/x").narrow(0, 0, 8));
  const torch::Tensor y = state.tensors.at("gem/y").narrow(0, 0, 8);
  int projected = 0;
  for (std::int64_t step = 0; step < 3; ++step) {
    driver.zero_gradients();
    at::cross_entropy_loss(driver.model->train_forward(x), y).backward();
    const torch::Tensor memory = driver.gradients();
    const torch::Tensor plain = driver.step(1, step, 0.5);
    EXPECT_GE(driver.gradients().dot(memory).item<double>(), -1e-5);
    projected += plain.dot(memory).item<double>() < 0 ? 1 : 0;
  }
  EXPECT_GT(projected, 0);
}

}  // namespace
}  // namespace perennial::continual
