// SPDX-License-Identifier: Apache-2.0
// The update rules, element by element, and what of them depends on the step. Everything is fused
// multiply-adds and exactly rounded operations, so host and device give the same bits. C++17.
#pragma once

#include <cmath>
#include <cstdint>

#include "perennial/kernels/expert_layout.h"
#include "perennial/kernels/host_device.h"
#include "perennial/kernels/update_rule.h"

namespace perennial::kernels::math {

// Floats that hold the step count and the sums of row-wise Adagrad.
constexpr std::int64_t kCounterFloats = 16;

// By repeated squaring: std::pow's last bit depends on the mathematics library.
PERENNIAL_HOST_DEVICE inline double power(double base, std::uint32_t exponent) {
  double result = 1;
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1u) result *= base;
    base *= base;
  }
  return result;
}

// What depends on t, rounded once from double.
struct AdamStep {
  float minus_rate = 0;   // -lr / (1 - beta1^t)
  float root_factor = 0;  // 1 / sqrt(1 - beta2^t)
};
PERENNIAL_HOST_DEVICE inline AdamStep adam_step(const UpdateRule& rule, std::uint32_t t) {
  AdamStep step;
  step.minus_rate = static_cast<float>(-rule.lr / (1 - power(rule.beta1, t)));
  step.root_factor = static_cast<float>(1 / std::sqrt(1 - power(rule.beta2, t)));
  return step;
}

// t of this step from that of the last: it stays at its largest value.
PERENNIAL_HOST_DEVICE inline std::uint32_t next_step(std::uint32_t t) {
  return t == 0xFFFFFFFFu ? t : t + 1;
}

// Row-wise Adagrad's -lr / (sqrt(sum) + eps).
PERENNIAL_HOST_DEVICE inline float adagrad_rate(const UpdateRule& rule, float sum) {
  return static_cast<float>(-rule.lr / (std::sqrt(static_cast<double>(sum)) + rule.eps));
}

enum class UpdateKind { sgd, momentum, adam, adamw, adagrad };

PERENNIAL_HOST_DEVICE inline UpdateKind kind_of(const UpdateRule& rule) {
  switch (rule.algorithm) {
    case UpdateAlgorithm::sgd:
      return rule.momentum > 0 ? UpdateKind::momentum : UpdateKind::sgd;
    case UpdateAlgorithm::adam:
      return UpdateKind::adam;
    case UpdateAlgorithm::adamw:
      return UpdateKind::adamw;
    case UpdateAlgorithm::rowwise_adagrad:
      return UpdateKind::adagrad;
  }
  return UpdateKind::sgd;
}
// Vectors of state of an expert's size.
PERENNIAL_HOST_DEVICE constexpr std::int64_t moments_of(UpdateKind kind) {
  return kind == UpdateKind::momentum                            ? 1
         : kind == UpdateKind::adam || kind == UpdateKind::adamw ? 2
                                                                 : 0;
}
PERENNIAL_HOST_DEVICE inline bool has_state(UpdateKind kind, const ExpertLayout& layout) {
  return kind != UpdateKind::sgd || layout.type == WeightType::bf16;
}

// A rule's numbers, rounded once to float.
struct RuleNumbers {
  float minus_lr = 0, momentum = 0, weight_decay = 0, eps = 0, keep = 0;
  float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0;
  bool nesterov = false;

  RuleNumbers() = default;
  explicit RuleNumbers(const UpdateRule& rule)
      : minus_lr(static_cast<float>(-rule.lr)),
        momentum(static_cast<float>(rule.momentum)),
        weight_decay(static_cast<float>(rule.weight_decay)),
        eps(static_cast<float>(rule.eps)),
        keep(static_cast<float>(1 - rule.lr * rule.weight_decay)),
        beta1(static_cast<float>(rule.beta1)),
        one_minus_beta1(static_cast<float>(1 - rule.beta1)),
        beta2(static_cast<float>(rule.beta2)),
        one_minus_beta2(static_cast<float>(1 - rule.beta2)),
        nesterov(rule.nesterov) {}
};

// One weight w with its gradient and its moments m (b of the momentum) and v; rate: Adagrad's.
template <UpdateKind kKind>
PERENNIAL_HOST_DEVICE inline void update_element(const RuleNumbers& rule, const AdamStep& step,
                                                 float rate, float gradient, float& w, float& m,
                                                 float& v) {
  if constexpr (kKind == UpdateKind::adam || kKind == UpdateKind::adamw) {
    float g = gradient;
    if constexpr (kKind == UpdateKind::adamw) {
      w = rule.keep * w;
    } else {
      g = std::fma(rule.weight_decay, w, g);
    }
    m = std::fma(rule.beta1, m, rule.one_minus_beta1 * g);
    v = std::fma(rule.beta2, v, rule.one_minus_beta2 * g * g);
    const float denominator = std::fma(std::sqrt(v), step.root_factor, rule.eps);
    w = std::fma(step.minus_rate, m / denominator, w);
  } else {
    const float g = std::fma(rule.weight_decay, w, gradient);
    if constexpr (kKind == UpdateKind::momentum) {
      m = std::fma(rule.momentum, m, g);
      w = std::fma(rule.minus_lr, rule.nesterov ? std::fma(rule.momentum, m, g) : m, w);
    } else {
      w = std::fma(kKind == UpdateKind::adagrad ? rate : rule.minus_lr, g, w);
    }
  }
}

}  // namespace perennial::kernels::math
