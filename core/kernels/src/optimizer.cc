// SPDX-License-Identifier: Apache-2.0
// SGD and Adam on one expert: elementwise, fused and exactly rounded operations only.
#include "perennial/kernels/optimizer.h"

#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optimizer.cc"
#include "hwy/foreach_target.h"
#include "lanes-inl.h"

#ifndef PERENNIAL_KERNELS_ADAM_CONSTANTS_  // this file is compiled once per target
#define PERENNIAL_KERNELS_ADAM_CONSTANTS_
namespace perennial::kernels {
namespace {

// One step's constants, each rounded once from double.
struct AdamConstants {
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float minus_step;   // -lr / (1 - beta1^t)
  float root_factor;  // 1 / sqrt(1 - beta2^t)
  float eps;
  float keep;  // 1 - lr * weight_decay
};

}  // namespace
}  // namespace perennial::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {

template <class D>
HWY_INLINE void sgd_step(D d, float lr, float weight_decay, const float* gradient, float* weights) {
  const auto w = hn::LoadU(d, weights);
  const auto g = fused_multiply_add(d, hn::Set(d, weight_decay), w, hn::LoadU(d, gradient));
  hn::StoreU(fused_multiply_add(d, hn::Set(d, -lr), g, w), d, weights);
}

void sgd_target(float lr, float weight_decay, std::int64_t n, const float* gradient,
                float* weights) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    sgd_step(FloatTag(), lr, weight_decay, gradient + i, weights + i);
  }
  for (; i < n; ++i) sgd_step(OneTag(), lr, weight_decay, gradient + i, weights + i);
}

template <class D>
HWY_INLINE void adam_step(D d, const AdamConstants& c, const float* gradient, float* weights,
                          float* m, float* v) {
  const auto g = hn::LoadU(d, gradient);
  const auto m1 = fused_multiply_add(d, hn::Set(d, c.beta1), hn::LoadU(d, m),
                                     hn::Mul(hn::Set(d, c.one_minus_beta1), g));
  const auto v1 = fused_multiply_add(d, hn::Set(d, c.beta2), hn::LoadU(d, v),
                                     hn::Mul(hn::Mul(hn::Set(d, c.one_minus_beta2), g), g));
  const auto denominator =
      fused_multiply_add(d, hn::Sqrt(v1), hn::Set(d, c.root_factor), hn::Set(d, c.eps));
  const auto kept = hn::Mul(hn::Set(d, c.keep), hn::LoadU(d, weights));
  hn::StoreU(m1, d, m);
  hn::StoreU(v1, d, v);
  hn::StoreU(fused_multiply_add(d, hn::Set(d, c.minus_step), hn::Div(m1, denominator), kept), d,
             weights);
}

void adam_target(const AdamConstants& c, std::int64_t n, const float* gradient, float* weights,
                 float* m, float* v) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    adam_step(FloatTag(), c, gradient + i, weights + i, m + i, v + i);
  }
  for (; i < n; ++i) adam_step(OneTag(), c, gradient + i, weights + i, m + i, v + i);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(sgd_target);
HWY_EXPORT(adam_target);

namespace {

// By repeated squaring: std::pow's last bit depends on the mathematics library.
double power(double base, std::uint32_t exponent) {
  double result = 1;
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1u) result *= base;
    base *= base;
  }
  return result;
}

}  // namespace

void sgd_update(const SgdRule& rule, std::int64_t n, const float* gradient, float* weights) {
  HWY_DYNAMIC_DISPATCH(sgd_target)
  (static_cast<float>(rule.lr), static_cast<float>(rule.weight_decay), n, gradient, weights);
}

void adam_update(const AdamRule& rule, std::uint32_t step, std::int64_t n, const float* gradient,
                 float* weights, float* m, float* v) {
  const AdamConstants constants{
      .beta1 = static_cast<float>(rule.beta1),
      .one_minus_beta1 = static_cast<float>(1 - rule.beta1),
      .beta2 = static_cast<float>(rule.beta2),
      .one_minus_beta2 = static_cast<float>(1 - rule.beta2),
      .minus_step = static_cast<float>(-rule.lr / (1 - power(rule.beta1, step))),
      .root_factor = static_cast<float>(1 / std::sqrt(1 - power(rule.beta2, step))),
      .eps = static_cast<float>(rule.eps),
      .keep = static_cast<float>(1 - rule.lr * rule.weight_decay),
  };
  HWY_DYNAMIC_DISPATCH(adam_target)(constants, n, gradient, weights, m, v);
}

}  // namespace perennial::kernels
#endif
