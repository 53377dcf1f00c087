// SPDX-License-Identifier: Apache-2.0
// Activations and score functions with their derivatives, in double inside, rounded once. C++17,
// for host and device: one set of formulas. (exp and erf are those of the host's or the device's
// library.)
#pragma once

#include <cmath>
#include <cstdint>

#include "perennial/kernels/activation.h"
#include "perennial/kernels/host_device.h"

namespace perennial::kernels::math {

constexpr double kInvSqrtPi = 0.56418958354775628695;
constexpr double kSqrt2 = 1.4142135623730950488;
constexpr double kTanhScale = 2 * kInvSqrtPi / kSqrt2;  // sqrt(2 / pi)
constexpr double kTanhCubic = 0.044715;

PERENNIAL_HOST_DEVICE inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// 2 z of the tanh(z) in gelu_tanh: 0.5 (1 + tanh(z)) = sigmoid(2 z), which costs a third.
PERENNIAL_HOST_DEVICE inline double tanh_argument(double x) {
  return 2 * kTanhScale * (x + kTanhCubic * x * x * x);
}

PERENNIAL_HOST_DEVICE inline float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::relu:
      return x < 0 ? 0.0f : x;  // NaN stays NaN
    case Activation::gelu: {
      const double value = x;
      return static_cast<float>(0.5 * value * (1 + std::erf(value / kSqrt2)));
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

PERENNIAL_HOST_DEVICE inline float activate_derivative(Activation activation, float x) {
  switch (activation) {
    case Activation::relu:
      return x > 0 ? 1.0f : x <= 0 ? 0.0f : x;  // NaN stays NaN
    case Activation::gelu: {
      constexpr double kDensity = kInvSqrtPi / kSqrt2;  // 1 / sqrt(2 pi)
      const double value = x;
      return static_cast<float>(0.5 * (1 + std::erf(value / kSqrt2)) +
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

// The functions of one score.
PERENNIAL_HOST_DEVICE inline float score_of(ScoreFunction function, float score) {
  if (function == ScoreFunction::sigmoid) return static_cast<float>(sigmoid(score));
  return function == ScoreFunction::relu && score < 0 ? 0.0f : score;  // NaN stays NaN
}

// dscore of a weight g with gradient dg; dot: softmax's sum of g dg.
PERENNIAL_HOST_DEVICE inline float score_slope_times(ScoreFunction function, double g, double dg,
                                                     double dot) {
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

// Weights (k) of one head's scores (k).
PERENNIAL_HOST_DEVICE inline void score_row(ScoreFunction function, std::int64_t k, const float* in,
                                            float* out) {
  if (function != ScoreFunction::softmax) {
    for (std::int64_t i = 0; i < k; ++i) out[i] = score_of(function, in[i]);
    return;
  }
  double top = in[0];
  for (std::int64_t i = 1; i < k; ++i) top = top < in[i] ? in[i] : top;
  double sum = 0;
  for (std::int64_t i = 0; i < k; ++i) sum += std::exp(in[i] - top);
  for (std::int64_t i = 0; i < k; ++i) out[i] = static_cast<float>(std::exp(in[i] - top) / sum);
}

// dscores (k) of one head from its weights and their gradients.
PERENNIAL_HOST_DEVICE inline void score_row_backward(ScoreFunction function, std::int64_t k,
                                                     const float* g, const float* dg, float* out) {
  double dot = 0;
  if (function == ScoreFunction::softmax) {
    for (std::int64_t i = 0; i < k; ++i) dot += static_cast<double>(g[i]) * dg[i];
  }
  for (std::int64_t i = 0; i < k; ++i) out[i] = score_slope_times(function, g[i], dg[i], dot);
}

// The factor of a neuron's v. gate: its w.x; null without GLU.
PERENNIAL_HOST_DEVICE inline float forward_coefficient(Activation activation, float weight,
                                                       float pre, const float* gate) {
  float hidden = activate(activation, pre);
  if (gate != nullptr) hidden *= *gate;
  return weight * hidden;
}

// Of one neuron with t = v.dy (see experts_backward_tokens): dweight's factor of t, and the
// coefficients of the expert side.
struct NeuronGradient {
  float hidden = 0, cu = 0, cv = 0, cw = 0;
};
PERENNIAL_HOST_DEVICE inline NeuronGradient neuron_gradient(Activation activation, float weight,
                                                            float t, float pre, const float* gate) {
  const float hidden = activate(activation, pre), slope = activate_derivative(activation, pre);
  const float scale = gate == nullptr ? 1.0f : *gate;
  NeuronGradient out;
  out.hidden = hidden * scale;
  out.cu = weight * t * slope * scale;
  out.cv = weight * (hidden * scale);
  out.cw = weight * t * hidden;
  return out;
}

}  // namespace perennial::kernels::math
