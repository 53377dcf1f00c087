// SPDX-License-Identifier: Apache-2.0
// The gradient of one expert: the sum over its uses.
#include <algorithm>

#include "perennial/kernels/experts.h"
#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "expert_gradient.cc"
#include "hwy/foreach_target.h"
#include "lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {

// kVectors vectors of out = sum over j < count, ascending, of c[j] rows[j], fused; from 0, or from
// what is there.
template <bool kFromZero, int kVectors>
HWY_INLINE void sum_vectors(std::int64_t at, std::int64_t count, const float* c,
                            const float* const* rows, float* out) {
  const FloatTag d;
  Floats acc[kVectors];
  for (int p = 0; p < kVectors; ++p) {
    acc[p] = kFromZero ? hn::Zero(d) : hn::LoadU(d, out + at + p * kLanes);
  }
  for (std::int64_t j = 0; j < count; ++j) {
    const Floats factor = hn::Set(d, c[j]);
    for (int p = 0; p < kVectors; ++p) {
      acc[p] = fused_multiply_add(d, factor, hn::LoadU(d, rows[j] + at + p * kLanes), acc[p]);
    }
  }
  for (int p = 0; p < kVectors; ++p) hn::StoreU(acc[p], d, out + at + p * kLanes);
}

template <bool kFromZero>
HWY_INLINE void sum_uses(std::int64_t n, std::int64_t count, const float* c,
                         const float* const* rows, float* out) {
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    sum_vectors<kFromZero, 4>(i, count, c, rows, out);
  }
  for (; i + kLanes <= n; i += kLanes) sum_vectors<kFromZero, 1>(i, count, c, rows, out);
  for (; i < n; ++i) {
    float sum = kFromZero ? 0.0f : out[i];
    for (std::int64_t j = 0; j < count; ++j) sum = std::fma(c[j], rows[j][i], sum);
    out[i] = sum;
  }
}

// Most experts of a step have one use; of those with many, this many are summed at once.
constexpr std::size_t kUses = 32;

template <bool kFromZero>
HWY_INLINE void add_uses(const ExpertLayout& layout, std::span<const Contribution> contributions,
                         std::span<const Use> uses, float* gradient) {
  const float* x[kUses];
  const float* dy[kUses];
  float cu[kUses], cv[kUses], cw[kUses];
  const auto count = static_cast<std::int64_t>(uses.size());
  for (std::int64_t neuron = 0; neuron < layout.width; ++neuron) {
    for (std::size_t j = 0; j < uses.size(); ++j) {
      const std::uint32_t position = uses[j].position;
      const Contribution& from = contributions[uses[j].contribution];
      const std::int64_t token = position / static_cast<std::uint32_t>(from.slots);
      const std::int64_t at = position * layout.width + neuron;
      x[j] = from.x + token * layout.d_in;
      dy[j] = from.dy + token * layout.d_out;
      cu[j] = from.cu[at];
      cv[j] = from.cv[at];
      if (layout.glu) cw[j] = from.cw[at];
    }
    const std::int64_t in = neuron * layout.d_in, out = neuron * layout.d_out;
    sum_uses<kFromZero>(layout.d_in, count, cu, x, gradient + layout.u() + in);
    sum_uses<kFromZero>(layout.d_out, count, cv, dy, gradient + layout.v() + out);
    if (layout.glu) sum_uses<kFromZero>(layout.d_in, count, cw, x, gradient + layout.w() + in);
  }
}

void expert_gradient_target(const ExpertLayout& layout, std::span<const Contribution> contributions,
                            std::span<const Use> uses, float* gradient) {
  add_uses<true>(layout, contributions, uses.first(std::min(uses.size(), kUses)), gradient);
  for (std::size_t at = kUses; at < uses.size(); at += kUses) {
    add_uses<false>(layout, contributions, uses.subspan(at, std::min(uses.size() - at, kUses)),
                    gradient);
  }
  for (std::int64_t i = layout.used(); i < layout.stride(); ++i) gradient[i] = 0;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(expert_gradient_target);

void expert_gradient(const ExpertLayout& layout, std::span<const Contribution> contributions,
                     std::span<const Use> uses, float* gradient) {
  HWY_DYNAMIC_DISPATCH(expert_gradient_target)(layout, contributions, uses, gradient);
}

}  // namespace perennial::kernels
#endif
