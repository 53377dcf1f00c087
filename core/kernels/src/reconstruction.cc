// SPDX-License-Identifier: Apache-2.0
// Sigmoid and cross entropy of whole rows.
#include "perennial/kernels/reconstruction.h"

#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reconstruction.cc"
#include "hwy/foreach_target.h"
// clang-format off: comes after foreach_target.h, which includes this file once per target
#include "hwy/contrib/math/math-inl.h"
// clang-format on
#include "lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {

// exp(-|x|), which neither overflows nor, beside 1, loses what counts. 0 for NaN.
HWY_INLINE Floats decay(Floats x) {
  const FloatTag d;
  return hn::Exp(d, hn::Neg(hn::Abs(x)));
}

void sigmoid_target(std::int64_t n, const float* in, float* out) {
  const FloatTag d;
  const Floats one = hn::Set(d, 1.0F);
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const Floats x = load_tail(in + i, n - i), e = decay(x);
    const Floats y = hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
    store_tail(hn::IfThenElse(hn::IsNaN(x), x, y), out + i, n - i);
  }
}

void reconstruction_error_target(std::int64_t begin, std::int64_t end, std::int64_t width,
                                 const float* logits, const float* targets, float* error) {
  const FloatTag d;
  for (std::int64_t row = begin; row < end; ++row) {
    const float* const l = logits + row * width;
    const float* const s = targets + row * width;
    double sums[kVirtualLanes] = {};
    for (std::int64_t base = 0; base < width; base += kVirtualLanes) {
      // Past the end are zeros, of which the term would be log 2.
      HWY_ALIGN float terms[kVirtualLanes];
      for (std::int64_t i = 0; i < kVirtualLanes; i += kLanes) {
        const std::int64_t at = base + i;
        const Floats x = load_tail(l + at, width - at), t = load_tail(s + at, width - at);
        const Floats linear = hn::Sub(hn::Max(x, hn::Zero(d)), hn::Mul(x, t));
        hn::Store(hn::Add(linear, hn::Log1p(d, decay(x))), d, terms + i);
      }
      const std::int64_t left = width - base < kVirtualLanes ? width - base : kVirtualLanes;
      for (std::int64_t i = 0; i < left; ++i) sums[i] += terms[i];
    }
    for (std::int64_t half = kVirtualLanes / 2; half > 0; half /= 2) {
      for (std::int64_t i = 0; i < half; ++i) sums[i] += sums[i + half];
    }
    error[row] = static_cast<float>(sums[0] / static_cast<double>(width));
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(sigmoid_target);
HWY_EXPORT(reconstruction_error_target);

void sigmoid(std::int64_t n, const float* in, float* out) {
  HWY_DYNAMIC_DISPATCH(sigmoid_target)(n, in, out);
}

void reconstruction_error(std::int64_t begin, std::int64_t end, std::int64_t width,
                          const float* logits, const float* targets, float* error) {
  HWY_DYNAMIC_DISPATCH(reconstruction_error_target)(begin, end, width, logits, targets, error);
}

}  // namespace perennial::kernels
#endif
