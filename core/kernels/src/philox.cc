// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10 and the exact normal and uniform values made of it.
#include "perennial/kernels/philox.h"

#include <cstddef>
#include <utility>

#include "philox_math.h"
#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "philox.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t kBlocks = 32;  // counters worked on together

// Words of `kBlocks` blocks from counter (first, a, b, c): the loops over j become vectors.
HWY_INLINE void philox_blocks(std::uint64_t seed, std::uint32_t first, std::uint32_t a,
                              std::uint32_t b, std::uint32_t c, std::uint32_t* words) {
  std::uint32_t x0[kBlocks], x1[kBlocks], x2[kBlocks], x3[kBlocks];
  for (std::size_t j = 0; j < kBlocks; ++j) {
    x0[j] = first + static_cast<std::uint32_t>(j);
    x1[j] = a;
    x2[j] = b;
    x3[j] = c;
  }
  auto key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (std::size_t j = 0; j < kBlocks; ++j) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * x0[j];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * x2[j];
      x0[j] = static_cast<std::uint32_t>(p1 >> 32) ^ x1[j] ^ key0;
      x1[j] = static_cast<std::uint32_t>(p1);
      x2[j] = static_cast<std::uint32_t>(p0 >> 32) ^ x3[j] ^ key1;
      x3[j] = static_cast<std::uint32_t>(p0);
    }
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  for (std::size_t j = 0; j < kBlocks; ++j) {
    words[4 * j] = x0[j];
    words[4 * j + 1] = x1[j];
    words[4 * j + 2] = x2[j];
    words[4 * j + 3] = x3[j];
  }
}

// log(x) for 0 < x <= 1/2: x = m 2^e with m in [sqrt(1/2), sqrt(2)), and log m = 2 atanh(s),
// s = (m - 1) / (m + 1), |s| < 0.172: the series to s^15 is good to 1e-13.
template <class D>
HWY_INLINE hn::Vec<D> log_of(D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, x);
  auto m = hn::BitCast(d, hn::Or(hn::And(bits, hn::Set(du, 0x000FFFFFFFFFFFFFull)),
                                 hn::Set(du, 0x3FE0000000000000ull)));
  // The biased exponent as a double, exactly: put it under the leading bit of 2^52.
  auto e =
      hn::Sub(hn::BitCast(d, hn::Or(hn::ShiftRight<52>(bits), hn::Set(du, 0x4330000000000000ull))),
              hn::Set(d, 0x1p52 + 1022.0));
  const auto low = hn::Lt(m, hn::Set(d, 0.70710678118654752));
  m = hn::IfThenElse(low, hn::Add(m, m), m);
  e = hn::IfThenElse(low, hn::Sub(e, hn::Set(d, 1.0)), e);
  const auto s = hn::Div(hn::Sub(m, hn::Set(d, 1.0)), hn::Add(m, hn::Set(d, 1.0)));
  const auto s2 = hn::Mul(s, s);
  auto sum = hn::Set(d, 1.0 / 15);
  sum = hn::Add(hn::Mul(sum, s2), hn::Set(d, 1.0 / 13));
  sum = hn::Add(hn::Mul(sum, s2), hn::Set(d, 1.0 / 11));
  sum = hn::Add(hn::Mul(sum, s2), hn::Set(d, 1.0 / 9));
  sum = hn::Add(hn::Mul(sum, s2), hn::Set(d, 1.0 / 7));
  sum = hn::Add(hn::Mul(sum, s2), hn::Set(d, 1.0 / 5));
  sum = hn::Add(hn::Mul(sum, s2), hn::Set(d, 1.0 / 3));
  sum = hn::Add(hn::Mul(sum, s2), hn::Set(d, 1.0));
  return hn::Add(hn::Mul(e, hn::Set(d, 0.693147180559945309)), hn::Mul(hn::Add(s, s), sum));
}

template <class D>
HWY_INLINE hn::Vec<D> step(D d, hn::Vec<D> sum, hn::Vec<D> r, double coefficient) {
  return hn::Add(hn::Mul(sum, r), hn::Set(d, coefficient));
}

// PPND7 at (word + 0.5) / 2^32; `word` holds integers. Its far branch (sqrt(-log p) > 5) is left
// out: the smallest p here is 2^-33, where the root is 4.79.
template <class D>
HWY_INLINE hn::Vec<D> quantile(D d, hn::Vec<D> word) {
  const auto p = hn::Mul(hn::Add(word, hn::Set(d, 0.5)), hn::Set(d, 0x1p-32));
  const auto q = hn::Sub(p, hn::Set(d, 0.5));
  // |q| <= 0.425
  auto r = hn::Sub(hn::Set(d, 0.180625), hn::Mul(q, q));
  auto num = step(d, hn::Set(d, 59.109374720), r, 159.29113202);
  num = step(d, num, r, 50.434271938);
  num = step(d, num, r, 3.3871327179);
  auto den = step(d, hn::Set(d, 67.187563600), r, 78.757757664);
  den = step(d, den, r, 17.895169469);
  den = step(d, den, r, 1.0);
  const auto centre = hn::Div(hn::Mul(q, num), den);
  const auto inside = hn::Le(hn::Abs(q), hn::Set(d, 0.425));
  if (hn::AllTrue(d, inside)) return centre;
  // the tails
  const auto tail_p = hn::Min(p, hn::Sub(hn::Set(d, 1.0), p));
  r = hn::Sub(hn::Sqrt(hn::Neg(log_of(d, tail_p))), hn::Set(d, 1.6));
  num = step(d, hn::Set(d, 0.17023821103), r, 1.3067284816);
  num = step(d, num, r, 2.7568153900);
  num = step(d, num, r, 1.4234372777);
  den = step(d, hn::Set(d, 0.12021132975), r, 0.73700164250);
  den = step(d, den, r, 1.0);
  const auto tail = hn::CopySign(hn::Div(num, den), q);
  return hn::IfThenElse(inside, centre, tail);
}

// Integers below 2^32 as doubles, exactly, without a conversion instruction.
template <class D, class U32>
HWY_INLINE hn::Vec<D> words_to_double(D d, U32 d32, const std::uint32_t* words) {
  const hn::RebindToUnsigned<D> du;
  const auto wide = hn::PromoteTo(du, hn::LoadU(d32, words));
  return hn::Sub(hn::BitCast(d, hn::Or(wide, hn::Set(du, 0x4330000000000000ull))),
                 hn::Set(d, 0x1p52));
}

double normal_quantile_target(std::uint32_t word) {
  const hn::CappedTag<double, 1> d;
  return hn::GetLane(quantile(d, hn::Set(d, static_cast<double>(word))));
}

enum class Distribution { normal, uniform };

// scale * value of each of kBlocks * 4 words, rounded once.
template <Distribution kDistribution>
HWY_INLINE void convert(double scale, const std::uint32_t* words, float* out) {
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, decltype(d)> df;
  const hn::Rebind<std::uint32_t, decltype(d)> du32;
  const auto factor = hn::Set(d, scale);
  for (std::size_t i = 0; i < 4 * kBlocks; i += hn::MaxLanes(d)) {
    auto value = words_to_double(d, du32, words + i);
    if constexpr (kDistribution == Distribution::normal) {
      value = quantile(d, value);
    } else {
      value = hn::Mul(hn::Sub(value, hn::Set(d, 0x1p31)), hn::Set(d, 0x1p-31));
    }
    hn::StoreU(hn::DemoteTo(df, hn::Mul(factor, value)), df, out + i);
  }
}

template <Distribution kDistribution>
HWY_INLINE void fill(std::uint64_t seed, std::uint32_t a, std::uint32_t b, std::uint32_t c,
                     float scale, float* out, std::size_t n) {
  std::uint32_t words[4 * kBlocks];
  float values[4 * kBlocks];
  for (std::size_t i = 0; i < n; i += 4 * kBlocks) {
    philox_blocks(seed, static_cast<std::uint32_t>(i / 4), a, b, c, words);
    if (n - i >= 4 * kBlocks) {
      convert<kDistribution>(scale, words, out + i);
    } else {
      convert<kDistribution>(scale, words, values);
      for (std::size_t j = 0; j < n - i; ++j) out[i + j] = values[j];
    }
  }
}

void fill_normal_target(std::uint64_t seed, std::uint32_t a, std::uint32_t b, std::uint32_t c,
                        float scale, float* out, std::size_t n) {
  fill<Distribution::normal>(seed, a, b, c, scale, out, n);
}

void fill_uniform_target(std::uint64_t seed, std::uint32_t a, std::uint32_t b, std::uint32_t c,
                         float scale, float* out, std::size_t n) {
  fill<Distribution::uniform>(seed, a, b, c, scale, out, n);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(normal_quantile_target);
HWY_EXPORT(fill_normal_target);
HWY_EXPORT(fill_uniform_target);

std::array<std::uint32_t, 4> philox(std::uint64_t seed, std::array<std::uint32_t, 4> counter) {
  math::philox(seed, counter.data());
  return counter;
}

double normal_quantile(std::uint32_t word) {
  return HWY_DYNAMIC_DISPATCH(normal_quantile_target)(word);
}

void fill_normal(std::uint64_t seed, std::uint32_t a, std::uint32_t b, std::uint32_t c, float scale,
                 std::span<float> out) {
  HWY_DYNAMIC_DISPATCH(fill_normal_target)(seed, a, b, c, scale, out.data(), out.size());
}

void fill_uniform(std::uint64_t seed, std::uint32_t a, std::uint32_t b, std::uint32_t c,
                  float scale, std::span<float> out) {
  HWY_DYNAMIC_DISPATCH(fill_uniform_target)(seed, a, b, c, scale, out.data(), out.size());
}

std::uint32_t RandomStream::next() {
  const std::uint64_t block = position_ / 4;
  const auto words =
      philox(seed_, {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                     static_cast<std::uint32_t>(lane_), static_cast<std::uint32_t>(lane_ >> 32)});
  return words[position_++ % 4];
}

std::uint32_t RandomStream::below(std::uint32_t bound) {
  std::uint64_t product = std::uint64_t{next()} * bound;
  if (static_cast<std::uint32_t>(product) < bound) {
    const std::uint32_t reject = (0u - bound) % bound;  // 2^32 mod bound
    while (static_cast<std::uint32_t>(product) < reject) product = std::uint64_t{next()} * bound;
  }
  return static_cast<std::uint32_t>(product >> 32);
}

void shuffled_indices(std::uint64_t seed, std::uint64_t lane, std::span<std::uint32_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::uint32_t>(i);
  RandomStream stream(seed, lane);
  for (std::size_t i = out.size(); i > 1; --i) {
    std::swap(out[i - 1], out[stream.below(static_cast<std::uint32_t>(i))]);
  }
}

}  // namespace perennial::kernels
#endif
