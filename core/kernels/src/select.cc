// SPDX-License-Identifier: Apache-2.0
// Top-k by a threshold: the k-th largest of some group maxima bounds the k-th largest score from
// below, so one more pass keeps only a few candidates to sort.
#include "select.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>

#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "select.cc"
#include "hwy/foreach_target.h"
#include "lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {

// maxima: (16 * strands); strand s, lane l holds the largest of scores[(s + i * strands) * 16 + l]
// over whole sixteens. NaN never wins.
void group_maxima_target(const float* scores, std::int64_t n, std::int64_t strands, float* maxima) {
  const FloatTag d;
  const auto lowest = hn::Set(d, -HUGE_VALF);
  for (std::int64_t s = 0; s < strands; ++s) {
    Floats best[kParts];
    for (std::int64_t p = 0; p < kParts; ++p) best[p] = lowest;
    for (std::int64_t i = s * kVirtualLanes; i + kVirtualLanes <= n; i += strands * kVirtualLanes) {
      for (std::int64_t p = 0; p < kParts; ++p) {
        const Floats x = hn::LoadU(d, scores + i + p * kLanes);
        best[p] = hn::IfThenElse(hn::Gt(x, best[p]), x, best[p]);
      }
    }
    for (std::int64_t p = 0; p < kParts; ++p) {
      hn::StoreU(best[p], d, maxima + s * kVirtualLanes + p * kLanes);
    }
  }
}

// A key whose descending order is (score descending, index ascending); -0 equals 0.
HWY_INLINE std::uint64_t order_key(float score, std::int64_t index) {
  const float value = score + 0.0f;
  std::uint32_t bits;
  hwy::CopyBytes<sizeof(bits)>(&value, &bits);
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (std::uint64_t{bits} << 32) | (0xFFFFFFFFu - static_cast<std::uint32_t>(index));
}

// keys: of all scores >= threshold and above minus infinity; room for n. Returns how many.
std::int64_t collect_target(const float* scores, std::int64_t n, float threshold,
                            std::uint64_t* keys) {
  const FloatTag d;
  const auto least = hn::Set(d, threshold);
  std::int64_t count = 0, i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const auto mask = hn::Ge(hn::LoadU(d, scores + i), least);
    std::uint8_t bytes[8] = {};
    hn::StoreMaskBits(d, mask, bytes);
    std::uint32_t bits = bytes[0] | (std::uint32_t{bytes[1]} << 8);
    for (; bits != 0; bits &= bits - 1) {
      const std::int64_t at =
          i + static_cast<std::int64_t>(hwy::Num0BitsBelowLS1Bit_Nonzero32(bits));
      keys[count++] = order_key(scores[at], at);
    }
  }
  for (; i < n; ++i) {
    if (scores[i] >= threshold) keys[count++] = order_key(scores[i], i);
  }
  return count;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(group_maxima_target);
HWY_EXPORT(collect_target);

void select_top(const float* scores, std::int64_t n, std::int64_t k, SelectScratch& scratch,
                Side& side) {
  side.index.clear();
  side.score.clear();
  if (n <= 0 || k <= 0) return;
  // Twice as many groups as k leave about 1.4 k candidates. The least threshold keeps everything
  // above minus infinity.
  float threshold = std::numeric_limits<float>::lowest();
  const std::int64_t strands = (2 * k + 15) / 16;
  if (n >= 32 * strands) {
    scratch.maxima.resize(static_cast<std::size_t>(16 * strands));
    HWY_DYNAMIC_DISPATCH(group_maxima_target)(scores, n, strands, scratch.maxima.data());
    const auto kth = scratch.maxima.begin() + (k - 1);
    std::nth_element(scratch.maxima.begin(), kth, scratch.maxima.end(), std::greater<>());
    threshold = std::max(threshold, *kth);
  }
  if (scratch.keys.size() < static_cast<std::size_t>(n)) {
    scratch.keys.resize(static_cast<std::size_t>(n));
  }
  const std::int64_t count =
      HWY_DYNAMIC_DISPATCH(collect_target)(scores, n, threshold, scratch.keys.data());
  const std::int64_t kept = std::min(count, k);
  const auto first = scratch.keys.begin();
  if (count > 4 * k) {
    std::nth_element(first, first + kept, first + count, std::greater<>());
    std::sort(first, first + kept, std::greater<>());
  } else {
    std::sort(first, first + count, std::greater<>());
  }
  for (std::int64_t i = 0; i < kept; ++i) {
    const auto index = 0xFFFFFFFFu - static_cast<std::uint32_t>(first[i]);
    side.index.push_back(index);
    side.score.push_back(scores[index]);
  }
}

}  // namespace perennial::kernels
#endif
