// SPDX-License-Identifier: Apache-2.0
// Update rules against their formulas in double, and the ways to hand them gradients.
#include "perennial/kernels/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "update_pool.h"

namespace perennial::kernels {
namespace {

// One expert by the formulas of optimizer.h, in double.
struct Reference {
  std::vector<double> w, first, second;  // first: b or m; second: v
  double sums[3] = {};
  int t = 0;

  void update(const UpdateRule& rule, const ExpertLayout& layout, const float* gradient) {
    ++t;
    std::vector<double> g(w.size());
    const bool in_gradient = rule.algorithm != UpdateAlgorithm::adamw;
    for (std::size_t i = 0; i < w.size(); ++i) {
      g[i] = gradient[i] + (in_gradient ? rule.weight_decay * w[i] : 0);
    }
    if (rule.algorithm == UpdateAlgorithm::rowwise_adagrad) {
      std::int64_t begin = 0;
      for (int row = 0; row < (layout.glu ? 3 : 2); ++row) {
        const std::int64_t n = row == 1 ? layout.d_out : layout.d_in;
        double squares = 0;
        for (std::int64_t i = begin; i < begin + n; ++i) squares += std::pow(g[at(i)], 2);
        sums[row] += squares / static_cast<double>(n);
        const double rate = rule.lr / (std::sqrt(sums[row]) + rule.eps);
        for (std::int64_t i = begin; i < begin + n; ++i) w[at(i)] -= rate * g[at(i)];
        begin += n;
      }
      return;
    }
    for (std::size_t i = 0; i < w.size(); ++i) {
      if (rule.algorithm == UpdateAlgorithm::sgd) {
        first[i] = rule.momentum * first[i] + g[i];
        w[i] -= rule.lr * (rule.nesterov ? g[i] + rule.momentum * first[i] : first[i]);
        continue;
      }
      if (!in_gradient) w[i] *= 1 - rule.lr * rule.weight_decay;
      first[i] = rule.beta1 * first[i] + (1 - rule.beta1) * g[i];
      second[i] = rule.beta2 * second[i] + (1 - rule.beta2) * g[i] * g[i];
      const double m = first[i] / (1 - std::pow(rule.beta1, t));
      const double v = second[i] / (1 - std::pow(rule.beta2, t));
      w[i] -= rule.lr * m / (std::sqrt(v) + rule.eps);
    }
  }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
};

std::uint32_t steps_of(const float* counter) {
  std::uint32_t steps = 0;
  std::memcpy(&steps, counter, sizeof steps);
  return steps;
}

TEST(UpdateExperts, FollowTheirFormulas) {
  constexpr std::uint32_t kSteps = 20;
  for (const auto& [name, rule] : rule_cases()) {
    for (const ExpertLayout& layout : update_layouts()) {
      SCOPED_TRACE(name + " " + std::to_string(layout.d_in) + (layout.glu ? " glu" : ""));
      UpdatePool pool(rule, layout);
      const auto used = static_cast<std::size_t>(layout.used());
      std::vector<Reference> references;
      for (std::size_t e = 0; e < 12; ++e) {
        const float* w = pool.weights_of(e);
        references.push_back({.w = {w, w + used},
                              .first = std::vector<double>(used),
                              .second = std::vector<double>(used)});
      }
      for (std::uint32_t step = 1; step <= kSteps; ++step) {
        pool.draw(step);
        const std::vector<float> rows = pool.rows();
        for (std::size_t i = 0; i < pool.ids.size(); ++i) {
          references[pool.index(pool.ids[i])].update(rule, layout, rows.data() + i * used);
        }
        pool.update();
      }
      for (std::size_t e = 0; e < references.size(); ++e) {
        const Reference& reference = references[e];
        EXPECT_GT(reference.t, 0);
        for (std::size_t i = 0; i < used; ++i) {
          // Some steps of lr times a direction of at most some tens (momentum), each rounded a few
          // times; Adam's direction is off by more where a moment nearly cancels.
          EXPECT_NEAR(pool.weights_of(e)[i], reference.w[i],
                      kSteps * (rule.lr * 1e-5 + 4e-7 * std::abs(reference.w[i])) + 1e-5)
              << "expert " << e << " at " << i;
        }
        for (std::int64_t i = layout.used(); i < layout.stride(); ++i) {
          EXPECT_EQ(pool.weights_of(e)[i], UpdatePool(rule, layout).weights_of(e)[i]) << "padding";
        }
        if (pool.state_floats == 0) continue;
        const float* counter = pool.state_of(e) + pool.state_floats - 16;
        EXPECT_EQ(steps_of(counter), static_cast<std::uint32_t>(reference.t));
        for (int row = 0; row < 3; ++row) {
          EXPECT_NEAR(counter[1 + row], reference.sums[row], 1e-4 * (1 + reference.sums[row]));
        }
      }
    }
  }
}

TEST(UpdateExperts, StateHasTheStatedSize) {
  const ExpertLayout layout{17, 13, false};  // 30 floats in 32
  const auto floats = [&](const UpdateRule& rule) { return update_state_floats(rule, layout); };
  EXPECT_EQ(floats({.algorithm = UpdateAlgorithm::sgd}), 0);
  EXPECT_EQ(floats({.algorithm = UpdateAlgorithm::sgd, .momentum = 0.5}), 32 + 16);
  EXPECT_EQ(floats({.algorithm = UpdateAlgorithm::adam}), 2 * 32 + 16);
  EXPECT_EQ(floats({.algorithm = UpdateAlgorithm::adamw}), 2 * 32 + 16);
  EXPECT_EQ(floats({.algorithm = UpdateAlgorithm::rowwise_adagrad}), 16);
}

// Uses, rows of gradients, and any cut into ranges: the same bits.
TEST(UpdateExperts, BitsDependOnNeitherTheRouteNorTheRanges) {
  for (const auto& [name, rule] : rule_cases()) {
    for (const ExpertLayout& layout : all_update_layouts()) {
      SCOPED_TRACE(name + " " + std::to_string(layout.d_in));
      UpdatePool fused(rule, layout), compact(rule, layout), cut(rule, layout);
      for (std::uint32_t step = 1; step <= 5; ++step) {
        for (UpdatePool* pool : {&fused, &compact, &cut}) pool->draw(step);
        fused.update();
        compact.update(0, std::ssize(compact.ids), compact.rows().data());
        for (std::int64_t end = std::ssize(cut.ids); end > 0; --end) cut.update(end - 1, end);
      }
      expect_same_bits(compact.weights, fused.weights);
      expect_same_bits(compact.state, fused.state);
      expect_same_bits(cut.weights, fused.weights);
      expect_same_bits(cut.state, fused.state);
    }
  }
}

TEST(UpdateExperts, OthersKeepTheirBytes) {
  for (const auto& [name, rule] : rule_cases()) {
    SCOPED_TRACE(name);
    UpdatePool pool(rule, {17, 13, true}), before(rule, {17, 13, true});
    pool.update();
    for (std::size_t e = 0; e < 12; ++e) {
      const bool touched = std::any_of(pool.ids.begin(), pool.ids.end(),
                                       [&](std::int64_t id) { return pool.index(id) == e; });
      const bool same = std::equal(pool.weights_of(e), pool.weights_of(e) + pool.layout.stride(),
                                   before.weights_of(e));
      EXPECT_TRUE(touched || same) << "expert " << e;
    }
  }
}

TEST(UpdateExperts, ZeroGradientFromRestMovesNothing) {
  for (const auto& [name, rule] : rule_cases()) {
    if (rule.weight_decay > 0) continue;
    SCOPED_TRACE(name);
    UpdatePool pool(rule, {17, 13, false});
    const auto before = pool.weights;
    const std::vector<float> zeros(pool.ids.size() * 30);
    pool.update(0, std::ssize(pool.ids), zeros.data());
    expect_same_bits(pool.weights, before);
    if (pool.state_floats == 0) continue;
    const float* state = pool.state_of(pool.index(pool.ids[0]));
    EXPECT_EQ(steps_of(state + pool.state_floats - 16), 1u) << "it counts as a step";
  }
}

TEST(UpdateExperts, StepNumberStaysAtItsLargest) {
  const UpdateRule rule{.algorithm = UpdateAlgorithm::adam};
  UpdatePool pool(rule, {1, 1, false});
  const std::uint32_t largest = 0xFFFFFFFFu;
  const std::size_t expert = pool.index(pool.ids[0]);
  float* state = pool.state_of(expert);
  state[0] = 0.5f;    // m
  state[16] = 0.25f;  // v
  std::memcpy(state + 32, &largest, sizeof largest);
  const float before = pool.weights_of(expert)[0];
  const std::vector<float> gradient(pool.ids.size() * 2, 0.5f);
  pool.update(0, 1, gradient.data());
  EXPECT_EQ(steps_of(state + 32), largest);
  // The corrections are 1: a step of lr m / sqrt(v).
  EXPECT_NEAR(pool.weights_of(expert)[0], before - 1e-3, 1e-6);
}

}  // namespace
}  // namespace perennial::kernels
