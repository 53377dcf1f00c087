// SPDX-License-Identifier: Apache-2.0
// Activations, score functions (double inside, rounded once) and dropout.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "perennial/kernels/experts.h"
#include "perennial/kernels/philox.h"

namespace perennial::kernels {

namespace {

constexpr double kTanhScale = 2 * std::numbers::inv_sqrtpi / std::numbers::sqrt2;  // sqrt(2 / pi)
constexpr double kTanhCubic = 0.044715;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// 2 z of the tanh(z) in gelu_tanh: 0.5 (1 + tanh(z)) = sigmoid(2 z), which costs a third.
double tanh_argument(double x) { return 2 * kTanhScale * (x + kTanhCubic * x * x * x); }

// The functions of one score.
float score_of(ScoreFunction function, float score) {
  if (function == ScoreFunction::sigmoid) return static_cast<float>(sigmoid(score));
  return function == ScoreFunction::relu && score < 0 ? 0.0f : score;  // NaN stays NaN
}

// dscore of a weight g with gradient dg; dot: softmax's sum of g dg.
float score_slope_times(ScoreFunction function, double g, double dg, double dot) {
  switch (function) {
    case ScoreFunction::softmax:
      return static_cast<float>(g * (dg - dot));
    case ScoreFunction::sigmoid:
      return static_cast<float>(g * (1 - g) * dg);
    case ScoreFunction::relu:
      return static_cast<float>(g == 0 ? 0 : dg);
    case ScoreFunction::identity:
      return static_cast<float>(dg);
  }
  return 0;
}

}  // namespace

float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::relu:
      return x < 0 ? 0.0f : x;  // NaN stays NaN
    case Activation::gelu: {
      const double value = x;
      return static_cast<float>(0.5 * value * (1 + std::erf(value / std::numbers::sqrt2)));
    }
    case Activation::identity:
      return x;
    case Activation::gelu_tanh:
      return static_cast<float>(x * sigmoid(tanh_argument(x)));
    case Activation::silu:
      return static_cast<float>(x * sigmoid(x));
  }
  return x;
}

float activate_derivative(Activation activation, float x) {
  switch (activation) {
    case Activation::relu:
      return x > 0 ? 1.0f : x <= 0 ? 0.0f : x;  // NaN stays NaN
    case Activation::gelu: {
      constexpr double kDensity = std::numbers::inv_sqrtpi / std::numbers::sqrt2;  // 1/sqrt(2 pi)
      const double value = x;
      return static_cast<float>(0.5 * (1 + std::erf(value / std::numbers::sqrt2)) +
                                value * kDensity * std::exp(-0.5 * value * value));
    }
    case Activation::identity:
      return 1.0f;
    case Activation::gelu_tanh: {
      const double value = x, s = sigmoid(tanh_argument(value));
      const double slope = 2 * kTanhScale * (1 + 3 * kTanhCubic * value * value);
      return static_cast<float>(s + value * s * (1 - s) * slope);
    }
    case Activation::silu: {
      const double s = sigmoid(x);
      return static_cast<float>(s * (1 + x * (1 - s)));
    }
  }
  return 1.0f;
}

void score_forward(ScoreFunction function, std::int64_t heads, std::int64_t k, const float* scores,
                   float* weights, std::int64_t begin, std::int64_t end) {
  if (k <= 0) return;
  for (std::int64_t row = begin * heads; row < end * heads; ++row) {
    const float* in = scores + row * k;
    float* out = weights + row * k;
    if (function != ScoreFunction::softmax) {
      for (std::int64_t i = 0; i < k; ++i) out[i] = score_of(function, in[i]);
      continue;
    }
    const double top = *std::max_element(in, in + k);
    double sum = 0;
    for (std::int64_t i = 0; i < k; ++i) sum += std::exp(in[i] - top);
    for (std::int64_t i = 0; i < k; ++i) {
      out[i] = static_cast<float>(std::exp(in[i] - top) / sum);
    }
  }
}

void score_backward(ScoreFunction function, std::int64_t heads, std::int64_t k,
                    const float* weights, const float* dweights, float* dscores, std::int64_t begin,
                    std::int64_t end) {
  for (std::int64_t row = begin * heads; row < end * heads; ++row) {
    const float* g = weights + row * k;
    const float* dg = dweights + row * k;
    float* out = dscores + row * k;
    double dot = 0;
    if (function == ScoreFunction::softmax) {
      for (std::int64_t i = 0; i < k; ++i) dot += static_cast<double>(g[i]) * dg[i];
    }
    for (std::int64_t i = 0; i < k; ++i) out[i] = score_slope_times(function, g[i], dg[i], dot);
  }
}

void dropout(std::uint64_t seed, std::uint64_t draw, double p, const float* in, float* out,
             std::int64_t begin, std::int64_t end) {
  constexpr std::uint32_t kLane = 0x44000000;
  const auto threshold = static_cast<std::uint64_t>(p * 0x1p32);
  const auto scale = static_cast<float>(1 / (1 - p));
  std::array<std::uint32_t, 4> words{};
  for (std::int64_t i = begin; i < end; ++i) {
    if (i == begin || i % 4 == 0) {
      words = philox(seed, {static_cast<std::uint32_t>(i / 4), static_cast<std::uint32_t>(draw),
                            static_cast<std::uint32_t>(draw >> 32), kLane});
    }
    out[i] = words[static_cast<std::size_t>(i % 4)] < threshold ? 0.0f : in[i] * scale;
  }
}

}  // namespace perennial::kernels
