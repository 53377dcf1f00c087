// SPDX-License-Identifier: Apache-2.0
// SGD and Adam against their formulas in double.
#include "perennial/kernels/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "inputs.h"

namespace perennial::kernels {
namespace {

TEST(Sgd, FollowsItsFormula) {
  for (const std::int64_t n : {0, 1, 15, 16, 17, 100}) {
    const auto gradient = uniform(n, 1);
    auto weights = uniform(n, 2);
    const auto before = weights;
    sgd_update({.lr = 0.1, .weight_decay = 0.01}, n, gradient.data(), weights.data());
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const float g = std::fma(0.01f, before[i], gradient[i]);
      EXPECT_EQ(weights[i], std::fma(-0.1f, g, before[i]));
    }
  }
}

struct AdamCase {
  AdamRule rule;
  std::int64_t n;
};

TEST(Adam, FollowsTheDoubleFormula) {
  const std::vector<AdamCase> cases{
      {{}, 1},
      {{}, 16},
      {{.lr = 0.01, .weight_decay = 0.1}, 33},
      {{.lr = 0.1, .beta1 = 0, .beta2 = 0.5, .eps = 1e-3}, 47},
  };
  for (const auto& [rule, n] : cases) {
    const auto size = static_cast<std::size_t>(n);
    auto weights = uniform(n, 1);
    std::vector<float> m(size), v(size);
    std::vector<double> weights2(weights.begin(), weights.end()), m2(size), v2(size);
    for (std::uint32_t step = 1; step <= 50; ++step) {
      const auto gradient = uniform(n, 100 + step);
      adam_update(rule, step, n, gradient.data(), weights.data(), m.data(), v.data());
      for (std::size_t i = 0; i < size; ++i) {
        const double g = gradient[i];
        m2[i] = rule.beta1 * m2[i] + (1 - rule.beta1) * g;
        v2[i] = rule.beta2 * v2[i] + (1 - rule.beta2) * g * g;
        const double m_hat = m2[i] / (1 - std::pow(rule.beta1, step));
        const double v_hat = v2[i] / (1 - std::pow(rule.beta2, step));
        weights2[i] -=
            rule.lr * (m_hat / (std::sqrt(v_hat) + rule.eps) + rule.weight_decay * weights2[i]);
      }
    }
    for (std::size_t i = 0; i < size; ++i) {
      // 50 steps of about lr, each off by some units of 2^-24 of itself and of the weight, and by
      // the rounding of m and v to fp32.
      const double tolerance = 50 * (rule.lr * 1e-5 + 2e-7 * std::abs(weights2[i]));
      EXPECT_NEAR(weights[i], weights2[i], tolerance);
      EXPECT_NEAR(m[i], m2[i], 1e-5);
      EXPECT_NEAR(v[i], v2[i], 1e-5);
    }
  }
}

TEST(Adam, ZeroGradientFromRestMovesNothing) {
  auto weights = uniform(20, 1);
  const auto before = weights;
  const std::vector<float> gradient(20);
  std::vector<float> m(20), v(20);
  adam_update({}, 1, 20, gradient.data(), weights.data(), m.data(), v.data());
  expect_same_bits(weights, before);
}

TEST(Adam, TakesTheLargestStepNumber) {
  std::vector<float> weights{1.0f}, m{0.5f}, v{0.25f};
  const std::vector<float> gradient{0.5f};
  adam_update({}, 0xFFFFFFFFu, 1, gradient.data(), weights.data(), m.data(), v.data());
  EXPECT_NEAR(weights[0], 1.0 - 1e-3, 1e-6);  // corrections are 1: a step of lr m / sqrt(v)
}

}  // namespace
}  // namespace perennial::kernels
