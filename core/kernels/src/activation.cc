// SPDX-License-Identifier: Apache-2.0
// Activations and score functions: double inside, rounded once.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "perennial/kernels/experts.h"

namespace perennial::kernels {

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
  }
  return x;
}

float activate_derivative(Activation activation, float x) {
  switch (activation) {
    case Activation::relu:
      return x > 0 ? 1.0f : 0.0f;
    case Activation::gelu: {
      constexpr double kDensity = std::numbers::inv_sqrtpi / std::numbers::sqrt2;  // 1/sqrt(2 pi)
      const double value = x;
      return static_cast<float>(0.5 * (1 + std::erf(value / std::numbers::sqrt2)) +
                                value * kDensity * std::exp(-0.5 * value * value));
    }
    case Activation::identity:
      return 1.0f;
  }
  return 1.0f;
}

void score_forward(ScoreFunction function, std::int64_t heads, std::int64_t k, const float* scores,
                   float* weights, std::int64_t begin, std::int64_t end) {
  if (k <= 0) return;
  for (std::int64_t row = begin * heads; row < end * heads; ++row) {
    const float* in = scores + row * k;
    float* out = weights + row * k;
    if (function == ScoreFunction::sigmoid) {
      for (std::int64_t i = 0; i < k; ++i) {
        out[i] = static_cast<float>(1.0 / (1.0 + std::exp(-static_cast<double>(in[i]))));
      }
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
    for (std::int64_t i = 0; i < k; ++i) {
      const double weight = g[i];
      out[i] =
          static_cast<float>(function == ScoreFunction::softmax ? weight * (dg[i] - dot)
                                                                : weight * (1 - weight) * dg[i]);
    }
  }
}

}  // namespace perennial::kernels
