// SPDX-License-Identifier: Apache-2.0
// Sums in 16 virtual lanes, compiled once per Highway target: the building blocks of every kernel
// whose bits must not depend on the instruction set.
#if defined(PERENNIAL_KERNELS_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PERENNIAL_KERNELS_LANES_INL_H_
#undef PERENNIAL_KERNELS_LANES_INL_H_
#else
#define PERENNIAL_KERNELS_LANES_INL_H_
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "perennial/kernels/bfloat16.h"

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using Floats = hn::Vec<FloatTag>;
using OneTag = hn::CappedTag<float, 1>;  // one float: what is left after the last whole vector

constexpr std::int64_t kVirtualLanes = 16;
constexpr std::int64_t kLanes = static_cast<std::int64_t>(hn::MaxLanes(FloatTag()));
constexpr std::int64_t kParts = kVirtualLanes / kLanes;  // vectors that make up the virtual lanes

// a b + c, rounded once. Highway's fallback targets round twice.
template <class D, class V>
HWY_INLINE V fused_multiply_add([[maybe_unused]] D d, V a, V b, V c) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(d, std::fma(hn::GetLane(a), hn::GetLane(b), hn::GetLane(c)));
#elif HWY_TARGET == HWY_EMU128
  HWY_ALIGN float x[hn::MaxLanes(D())], y[hn::MaxLanes(D())], z[hn::MaxLanes(D())];
  hn::Store(a, d, x);
  hn::Store(b, d, y);
  hn::Store(c, d, z);
  for (std::size_t i = 0; i < hn::MaxLanes(D()); ++i) z[i] = std::fma(x[i], y[i], z[i]);
  return hn::Load(d, z);
#else
  return hn::MulAdd(a, b, c);
#endif
}

// The first `count` floats at p (any count, also below 0 or above kLanes), zeros after them.
HWY_INLINE Floats load_tail(const float* p, std::int64_t count) {
  const FloatTag d;
  if (count >= kLanes) return hn::LoadU(d, p);
  if (count <= 0) return hn::Zero(d);
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
  return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(count)), d, p);
#else
  // Elsewhere a masked load may touch the masked lanes' memory.
  HWY_ALIGN float lanes[kLanes] = {};
  for (std::int64_t i = 0; i < count; ++i) lanes[i] = p[i];
  return hn::Load(d, lanes);
#endif
}

// What a row of weights W is read in: kPerLane neighbours share a virtual lane, kBlock elements
// take all lanes. Halves are promoted where they lie: of a word of two, one is shifted, one masked.
template <class W>
struct Weights;
template <>
struct Weights<float> {
  static constexpr std::int64_t kPerLane = 1, kBlock = kVirtualLanes;
};
template <>
struct Weights<BFloat16> {
  static constexpr std::int64_t kPerLane = 2, kBlock = 2 * kVirtualLanes;
};
template <class W>
struct Vectors {
  Floats v[Weights<W>::kPerLane];
};

HWY_INLINE Vectors<float> load_weights(const float* p) { return {{hn::LoadU(FloatTag(), p)}}; }
HWY_INLINE Vectors<BFloat16> load_weights(const BFloat16* p) {
  const FloatTag d;
  const hn::Repartition<std::uint32_t, FloatTag> words;
  const auto both = hn::LoadU(words, reinterpret_cast<const std::uint32_t*>(p));
  return {{hn::BitCast(d, hn::ShiftLeft<16>(both)),
           hn::BitCast(d, hn::And(both, hn::Set(words, 0xFFFF0000u)))}};
}
// What is multiplied with load_weights(const W*), or added to.
template <class W>
HWY_INLINE Vectors<W> load_values(const float* p) {
  Vectors<W> values;
  if constexpr (Weights<W>::kPerLane == 1) {
    values.v[0] = hn::LoadU(FloatTag(), p);
  } else {
    hn::LoadInterleaved2(FloatTag(), p, values.v[0], values.v[1]);
  }
  return values;
}
HWY_INLINE void store_values(const Vectors<float>& values, float* p) {
  hn::StoreU(values.v[0], FloatTag(), p);
}
HWY_INLINE void store_values(const Vectors<BFloat16>& values, float* p) {
  hn::StoreInterleaved2(values.v[0], values.v[1], FloatTag(), p);
}
HWY_INLINE float weight_at(const float* p, std::int64_t i) { return p[i]; }
HWY_INLINE float weight_at(const BFloat16* p, std::int64_t i) { return to_float(p[i]); }

// load_weights and load_values of the first `count` elements (any count), zeros after them.
HWY_INLINE Vectors<float> load_weights_tail(const float* p, std::int64_t count) {
  return {{load_tail(p, count)}};
}
HWY_INLINE Vectors<BFloat16> load_weights_tail(const BFloat16* p, std::int64_t count) {
  BFloat16 padded[2 * kLanes] = {};
  for (std::int64_t i = 0; i < count && i < 2 * kLanes; ++i) padded[i] = p[i];
  return load_weights(padded);
}
template <class W>
HWY_INLINE Vectors<W> load_values_tail(const float* p, std::int64_t count) {
  if constexpr (Weights<W>::kPerLane == 1) {
    return {{load_tail(p, count)}};
  } else {
    float padded[2 * kLanes] = {};
    for (std::int64_t i = 0; i < count && i < 2 * kLanes; ++i) padded[i] = p[i];
    return load_values<W>(padded);
  }
}

// Stores the first `count` lanes.
HWY_INLINE void store_tail(Floats v, float* p, std::int64_t count) {
  const FloatTag d;
  if (count >= kLanes) {
    hn::StoreU(v, d, p);
    return;
  }
  HWY_ALIGN float lanes[kLanes];
  hn::Store(v, d, lanes);
  for (std::int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

// Lane i of the result: the lanes of acc[i] folded by halves, as matmul.h says. Overwrites acc.
// Each level halves the lanes that belong to one sum and puts two vectors' halves into one.
HWY_INLINE Floats fold_lanes(Floats (&acc)[kLanes]) {
  [[maybe_unused]] const FloatTag d;
#if HWY_MAX_BYTES >= 64
  HWY_UNROLL(8)
  for (int i = 0; i < 8; ++i) {
    acc[i] = hn::Add(hn::ConcatLowerLower(d, acc[i + 8], acc[i]),
                     hn::ConcatUpperUpper(d, acc[i + 8], acc[i]));
  }
#endif
#if HWY_MAX_BYTES >= 32
  HWY_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    const Floats p = acc[i], q = acc[i + 4];
    acc[i] = hn::Add(hn::OddEvenBlocks(q, p), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(p, q)));
  }
#endif
#if HWY_MAX_BYTES >= 16
  const hn::RepartitionToWide<FloatTag> wide;
  HWY_UNROLL(2)
  for (int i = 0; i < 2; ++i) {
    const auto p = hn::BitCast(wide, acc[i]), q = hn::BitCast(wide, acc[i + 2]);
    acc[i] = hn::Add(hn::BitCast(d, hn::InterleaveLower(wide, p, q)),
                     hn::BitCast(d, hn::InterleaveUpper(wide, p, q)));
  }
  const Floats p = acc[0], q = acc[1];
  acc[0] = hn::Add(hn::OddEven(q, p), hn::Shuffle2301(hn::OddEven(p, q)));
#endif
  return acc[0];
}

struct NoPrefetch {
  HWY_INLINE void operator()(std::int64_t) const {}
};

// kLanes sums at once: lane r * C + c is the sum over k of a[r][k] b[c][k], in 16 virtual lanes.
// prefetch(base) is called once per 16 k.
template <int R, int C, class Prefetch = NoPrefetch>
HWY_INLINE Floats block_sums(std::int64_t k, const float* const (&a)[R], const float* const (&b)[C],
                             Prefetch prefetch = {}) {
  static_assert(R * C == kLanes);
  const FloatTag d;
  Floats part[kParts][kLanes];
  for (std::int64_t p = 0; p < kParts; ++p) {
    const std::int64_t offset = p * kLanes;
    Floats acc[kLanes];
    HWY_UNROLL(16)
    for (int i = 0; i < kLanes; ++i) acc[i] = hn::Zero(d);
    std::int64_t base = 0;
    for (; base + kVirtualLanes <= k; base += kVirtualLanes) {
      if (p == 0) prefetch(base);
      Floats y[C];
      HWY_UNROLL(16)
      for (int c = 0; c < C; ++c) y[c] = hn::LoadU(d, b[c] + base + offset);
      HWY_UNROLL(16)
      for (int r = 0; r < R; ++r) {
        const Floats x = hn::LoadU(d, a[r] + base + offset);
        HWY_UNROLL(16)
        for (int c = 0; c < C; ++c) {
          acc[r * C + c] = fused_multiply_add(d, x, y[c], acc[r * C + c]);
        }
      }
    }
    if (base < k) {
      const std::int64_t left = k - base - offset;
      Floats y[C];
      HWY_UNROLL(16)
      for (int c = 0; c < C; ++c) y[c] = load_tail(b[c] + (left > 0 ? base + offset : 0), left);
      HWY_UNROLL(16)
      for (int r = 0; r < R; ++r) {
        const Floats x = load_tail(a[r] + (left > 0 ? base + offset : 0), left);
        HWY_UNROLL(16)
        for (int c = 0; c < C; ++c) {
          acc[r * C + c] = fused_multiply_add(d, x, y[c], acc[r * C + c]);
        }
      }
    }
    HWY_UNROLL(16)
    for (int i = 0; i < kLanes; ++i) part[p][i] = acc[i];
  }
  for (std::int64_t half = kParts / 2; half >= 1; half /= 2) {
    for (std::int64_t p = 0; p < half; ++p) {
      HWY_UNROLL(16)
      for (int i = 0; i < kLanes; ++i) part[p][i] = hn::Add(part[p][i], part[p + half][i]);
    }
  }
  return fold_lanes(part[0]);
}

// y[i] = c x[i] + y[i], fused.
HWY_INLINE void axpy(std::int64_t n, float c, const float* x, float* y) {
  const FloatTag d;
  const Floats factor = hn::Set(d, c);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    hn::StoreU(fused_multiply_add(d, factor, hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
  }
  for (; i < n; ++i) y[i] = std::fma(c, x[i], y[i]);
}

}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#endif  // PERENNIAL_KERNELS_LANES_INL_H_
