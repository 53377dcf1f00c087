// SPDX-License-Identifier: Apache-2.0
// Expert and score kernels against the reference.
#include "perennial/kernels/experts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <span>
#include <vector>

#include "expert_pool.h"
#include "inputs.h"
#include "perennial/kernels/reference.h"

namespace perennial::kernels {
namespace {

// Inputs of size 1: a dot over d terms is off by about sqrt(d) 2^-24 of its size, and a sum over
// slots of products of two such dots by a little more.
double tolerance(const ExpertCase& shape) {
  return 1e-6 *
         static_cast<double>((1 + shape.slots) * (1 + shape.layout.d_in + shape.layout.d_out));
}

std::vector<const float*> records(const ExpertPool& pool, std::int64_t token) {
  std::vector<const float*> out;
  const ExpertArgs args = pool.args();
  for (std::int64_t s = 0; s < args.slots; ++s) {
    out.push_back(args.frames.record(args.ids[token * args.slots + s]));
  }
  return out;
}

template <class T>
std::span<T> row(std::vector<T>& values, std::int64_t index, std::int64_t width) {
  return std::span<T>(values).subspan(static_cast<std::size_t>(index * width),
                                      static_cast<std::size_t>(width));
}

TEST(Experts, ForwardMatchesTheReference) {
  for (const ExpertCase& shape : expert_cases()) {
    SCOPED_TRACE(shape.name);
    ExpertPool pool(shape);
    pool.forward(0, shape.tokens);
    for (std::int64_t t = 0; t < shape.tokens; ++t) {
      const auto expected = reference::experts_forward<float>(
          shape.layout, shape.activation, records(pool, t), row(pool.weights, t, shape.slots),
          row(pool.x, t, shape.layout.d_in));
      expect_near(row(pool.y, t, shape.layout.d_out), expected, tolerance(shape));
    }
  }
}

TEST(Experts, BackwardMatchesTheReference) {
  for (const ExpertCase& shape : expert_cases()) {
    SCOPED_TRACE(shape.name);
    ExpertPool pool(shape);
    pool.forward(0, shape.tokens);
    pool.backward(0, shape.tokens);
    std::map<std::int64_t, std::vector<Use>> uses;  // of every expert, token and slot ascending
    std::map<std::int64_t, std::vector<float>> expected_gradient;
    for (std::int64_t t = 0; t < shape.tokens; ++t) {
      const auto expected = reference::experts_backward<float>(
          shape.layout, shape.activation, records(pool, t), row(pool.weights, t, shape.slots),
          row(pool.x, t, shape.layout.d_in), row(pool.dy, t, shape.layout.d_out));
      expect_near(row(pool.dx, t, shape.layout.d_in), expected.dx, tolerance(shape));
      expect_near(row(pool.dweights, t, shape.slots), expected.dweights, tolerance(shape));
      for (std::int64_t s = 0; s < shape.slots; ++s) {
        const std::int64_t position = t * shape.slots + s;
        const std::int64_t id = pool.ids[static_cast<std::size_t>(position)];
        uses[id].push_back({0, static_cast<std::uint32_t>(position)});
        auto& sum = expected_gradient[id];
        sum.resize(static_cast<std::size_t>(shape.layout.stride()));
        for (std::size_t i = 0; i < sum.size(); ++i) {
          sum[i] += expected.dexperts[static_cast<std::size_t>(s)][i];
        }
      }
    }
    const Contribution contribution = pool.contribution();
    for (const auto& [id, list] : uses) {
      std::vector<float> gradient(static_cast<std::size_t>(shape.layout.stride()), 9.0f);
      expert_gradient(shape.layout, {&contribution, 1}, list, gradient.data());
      expect_near(gradient, expected_gradient[id], tolerance(shape));
    }
  }
}

TEST(Experts, PreActivationsAndGatesAreReported) {
  ExpertPool pool({"glu", 2, 5, {8, 4, true}, Activation::gelu});
  pool.forward(0, 2);
  for (std::int64_t t = 0; t < 2; ++t) {
    const auto experts = records(pool, t);
    for (std::size_t s = 0; s < 5; ++s) {
      double pre = 0, gate = 0;
      for (std::int64_t i = 0; i < 8; ++i) {
        const double x = pool.x[static_cast<std::size_t>(t * 8 + i)];
        pre += x * experts[s][i];
        gate += x * experts[s][pool.shape.layout.w() + i];
      }
      EXPECT_NEAR(pool.pre[static_cast<std::size_t>(t) * 5 + s], pre, 1e-6);
      EXPECT_NEAR(pool.gate[static_cast<std::size_t>(t) * 5 + s], gate, 1e-6);
    }
  }
}

TEST(Experts, TokensDoNotDependOnTheBatch) {
  for (const ExpertCase& shape : expert_cases()) {
    SCOPED_TRACE(shape.name);
    ExpertPool whole(shape), alone(shape);
    whole.forward(0, shape.tokens);
    whole.backward(0, shape.tokens);
    for (std::int64_t t = shape.tokens; t > 0; --t) {
      alone.forward(t - 1, t);
      alone.backward(t - 1, t);
    }
    expect_same_bits(alone.y, whole.y);
    expect_same_bits(alone.pre, whole.pre);
    expect_same_bits(alone.gate, whole.gate);
    expect_same_bits(alone.dx, whole.dx);
    expect_same_bits(alone.dweights, whole.dweights);
    expect_same_bits(alone.cu, whole.cu);
    expect_same_bits(alone.cv, whole.cv);
    expect_same_bits(alone.cw, whole.cw);
  }
}

// An expert that several heads of one token retrieve adds up, forward and backward.
TEST(Experts, DuplicatesAccumulate) {
  ExpertPool pool({"duplicates", 1, 3, {4, 4, false}, Activation::identity});
  std::fill(pool.ids.begin(), pool.ids.end(), pool.ids[0]);
  pool.forward(0, 1);
  pool.backward(0, 1);
  const float* record = records(pool, 0)[0];
  const double total = double{pool.weights[0]} + pool.weights[1] + pool.weights[2];
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(pool.y[i], total * pool.pre[0] * record[4 + i], 1e-6);
  }
  const std::vector<Use> uses{{0, 0}, {0, 1}, {0, 2}};
  const Contribution contribution = pool.contribution();
  std::vector<float> gradient(16, 9.0f);
  expert_gradient(pool.shape.layout, {&contribution, 1}, uses, gradient.data());
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(gradient[4 + i], total * pool.pre[0] * pool.dy[i], 1e-6);
  }
  for (std::size_t i = 8; i < 16; ++i) EXPECT_EQ(gradient[i], 0.0f);  // the padding
}

TEST(Experts, GradientTakesUsesInOrderFromSeveralContributions) {
  const ExpertLayout layout{1, 1, false};
  const std::vector<float> x{1e8f, 1.0f}, dy{1.0f, 1.0f}, cu{1.0f, 1.0f}, cv{2.0f, 3.0f};
  const std::vector<float> x2{-1e8f};
  const std::vector<Contribution> contributions{{1, x.data(), dy.data(), cu.data(), cv.data()},
                                                {1, x2.data(), dy.data(), cu.data(), cv.data()}};
  std::vector<float> gradient(16);
  expert_gradient(layout, contributions, std::vector<Use>{{0, 0}, {0, 1}, {1, 0}}, gradient.data());
  EXPECT_EQ(gradient[0], 0.0f);  // 1e8 + 1 loses the 1 in fp32: the order shows
  EXPECT_EQ(gradient[1], 7.0f);
  expert_gradient(layout, contributions, std::vector<Use>{{0, 0}, {1, 0}, {0, 1}}, gradient.data());
  EXPECT_EQ(gradient[0], 1.0f);
  expert_gradient(layout, contributions, {}, gradient.data());
  EXPECT_EQ(gradient[0], 0.0f);
}

TEST(Activations, MatchTheReference) {
  for (const Activation activation : kActivations) {
    for (const float x :
         {-1e38f, -200.0f, -20.0f, -3.0f, -0.5f, -0.0f, 0.0f, 1e-20f, 0.7f, 3.0f, 30.0f, 1e38f}) {
      // Both round once from double; the formulas differ in its last bits.
      EXPECT_FLOAT_EQ(activate(activation, x),
                      static_cast<float>(reference::activate<double>(activation, x)));
      EXPECT_FLOAT_EQ(activate_derivative(activation, x),
                      static_cast<float>(reference::activate_derivative<double>(activation, x)));
    }
    EXPECT_TRUE(std::isnan(activate(activation, std::nanf(""))));
    EXPECT_EQ(std::isnan(activate_derivative(activation, std::nanf(""))),
              activation != Activation::identity);
  }
  EXPECT_EQ(activate_derivative(Activation::relu, 0.0f), 0.0f);
}

TEST(Scores, MatchTheReference) {
  for (const ScoreFunction function : kScoreFunctions) {
    for (const std::int64_t k : {1, 2, 16, 17}) {
      const std::int64_t tokens = 4, heads = 3;
      auto scores = uniform(tokens * heads * k, 1);
      for (float& score : scores) score *= 100;  // saturates, must not overflow
      auto dweights = uniform(tokens * heads * k, 2);
      std::vector<float> weights(scores.size()), dscores(scores.size());
      for (std::int64_t t = 0; t < tokens; ++t) {
        score_forward(function, heads, k, scores.data(), weights.data(), t, t + 1);
        score_backward(function, heads, k, weights.data(), dweights.data(), dscores.data(), t,
                       t + 1);
      }
      for (std::int64_t r = 0; r < tokens * heads; ++r) {
        const auto expected = reference::score<float>(function, row(scores, r, k));
        expect_near(row(weights, r, k), expected, 1e-7);
        expect_near(
            row(dscores, r, k),
            reference::score_backward<float>(function, row(weights, r, k), row(dweights, r, k)),
            1e-7);
      }
    }
  }
}

TEST(Scores, NanGivesNan) {
  for (const ScoreFunction function : kScoreFunctions) {
    for (const std::size_t bad : {0, 1, 2}) {
      std::vector<float> scores{1, 2, 3}, weights(3), dscores(3);
      scores[bad] = std::nanf("");
      score_forward(function, 1, 3, scores.data(), weights.data(), 0, 1);
      EXPECT_TRUE(std::isnan(weights[bad]));
      const std::vector<float> dweights(3, std::nanf(""));
      score_backward(function, 1, 3, weights.data(), dweights.data(), dscores.data(), 0, 1);
      EXPECT_TRUE(std::isnan(dscores[bad]));
    }
  }
}

}  // namespace
}  // namespace perennial::kernels
