// SPDX-License-Identifier: Apache-2.0
// Expert and score kernels against the reference.
#include "perennial/kernels/experts.h"

#include <gtest/gtest.h>

#include <algorithm>
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
  return 1e-6 * static_cast<double>((1 + shape.slots * shape.layout.width) *
                                    (1 + shape.layout.d_in + shape.layout.d_out));
}

std::vector<const float*> records(const ExpertPool& pool, std::int64_t token) {
  std::vector<const float*> out;
  const std::int64_t slots = pool.shape.slots;
  for (std::int64_t s = token * slots; s < (token + 1) * slots; ++s) {
    out.push_back(pool.record(pool.ids[static_cast<std::size_t>(s)]));
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

TEST(Experts, ThreadsThatShareATokenGiveItsBits) {
  for (const ExpertCase& shape : expert_cases()) {
    SCOPED_TRACE(shape.name);
    ExpertPool whole(shape), shared(shape);
    whole.forward(0, shape.tokens);
    const ExpertArgs args = shared.args();
    const std::int64_t neurons = shape.slots * shape.layout.width, d_out = shape.layout.d_out;
    const std::int64_t groups = expert_groups(args);
    EXPECT_EQ(groups, (neurons + 15) / 16);
    for (std::int64_t t = 0; t < shape.tokens; ++t) {
      std::vector<float> coefficients(static_cast<std::size_t>(neurons));
      float* gate = shape.layout.glu ? shared.gate.data() + t * neurons : nullptr;
      for (std::int64_t g = groups; g > 0; --g) {
        expert_coefficients(args, t, shared.pre.data() + t * neurons, gate, coefficients.data(),
                            g - 1, g);
      }
      // Any cut will do: 0, 1, 4, 7, ...
      for (std::int64_t end = d_out; end > 0; end -= 3) {
        expert_sums(args, t, coefficients.data(), shared.y.data() + t * d_out,
                    std::max<std::int64_t>(end - 3, 0), end);
      }
    }
    expect_same_bits(shared.y, whole.y);
    expect_same_bits(shared.pre, whole.pre);
    expect_same_bits(shared.gate, whole.gate);
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

// An expert of width r is r experts of width 1 that share a weight.
TEST(Experts, WidthIsASumOfNeurons) {
  const ExpertLayout layout{12, 6, true, 4}, narrow{12, 6, true};
  ExpertPool pool({"wide", 3, 5, layout, Activation::silu});
  pool.forward(0, 3);
  for (std::int64_t t = 0; t < 3; ++t) {
    std::vector<std::vector<float>> neurons;
    std::vector<const float*> experts;
    std::vector<float> weights;
    for (std::int64_t s = 0; s < 5; ++s) {
      const float* record = records(pool, t)[static_cast<std::size_t>(s)];
      for (std::int64_t j = 0; j < 4; ++j) {
        std::vector<float>& neuron = neurons.emplace_back();
        neuron.insert(neuron.end(), record + j * 12, record + (j + 1) * 12);
        neuron.insert(neuron.end(), record + layout.v() + j * 6, record + layout.v() + (j + 1) * 6);
        neuron.insert(neuron.end(), record + layout.w() + j * 12,
                      record + layout.w() + (j + 1) * 12);
        weights.push_back(pool.weights[static_cast<std::size_t>(t * 5 + s)]);
      }
    }
    for (const auto& neuron : neurons) experts.push_back(neuron.data());
    expect_near(row(pool.y, t, 6),
                reference::experts_forward<float>(narrow, Activation::silu, experts, weights,
                                                  row(pool.x, t, 12)),
                1e-5);
  }
}

TEST(Experts, NanStaysInItsToken) {
  for (const WeightType type : {WeightType::f32, WeightType::bf16}) {
    for (const Activation activation : kActivations) {
      ExpertPool clean({"nan", 3, 9, {20, 5, false, 2, type}, activation}), pool(clean.shape);
      pool.x[20 + 19] = std::nanf("");
      clean.forward(0, 3);
      pool.forward(0, 3);
      pool.backward(0, 3);
      for (std::int64_t i = 0; i < 5; ++i) {
        EXPECT_TRUE(std::isnan(row(pool.y, 1, 5)[static_cast<std::size_t>(i)]));
      }
      expect_same_bits(row(pool.y, 0, 5), row(clean.y, 0, 5));
      expect_same_bits(row(pool.y, 2, 5), row(clean.y, 2, 5));
    }
  }
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

TEST(Dropout, DropsTheShareAskedAndScalesTheRest) {
  for (const double p : {0.0, 0.25, 0.9}) {
    const std::int64_t n = 40001;
    const auto in = uniform(n, 1);
    std::vector<float> whole(in.size()), parts(in.size()), other(in.size());
    dropout(7, 3, p, in.data(), whole.data(), 0, n);
    for (std::int64_t i = 0; i < n; i += 11) {  // any cut gives the same
      dropout(7, 3, p, in.data(), parts.data(), i, std::min(i + 11, n));
    }
    expect_same_bits(parts, whole);
    dropout(7, 4, p, in.data(), other.data(), 0, n);
    std::int64_t zeros = 0, differences = 0;
    for (std::size_t i = 0; i < in.size(); ++i) {
      zeros += whole[i] == 0;
      differences += (whole[i] == 0) != (other[i] == 0);
      if (whole[i] != 0) {
        EXPECT_FLOAT_EQ(whole[i], in[i] / static_cast<float>(1 - p));
      }
    }
    const auto count = static_cast<double>(n);
    const double sigma = std::sqrt(count * p * (1 - p));
    EXPECT_NEAR(static_cast<double>(zeros), p * count, 5 * sigma);
    EXPECT_NEAR(static_cast<double>(differences), 2 * p * (1 - p) * count, 7 * sigma);
  }
  const float nan = std::nanf("");
  float out = 1;
  dropout(1, 0, 0, &nan, &out, 0, 1);
  EXPECT_TRUE(std::isnan(out));
}

}  // namespace
}  // namespace perennial::kernels
