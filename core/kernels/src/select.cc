// SPDX-License-Identifier: Apache-2.0
// Top-k by a threshold: the k-th largest of some group maxima bounds the k-th largest score from
// below, so one more pass keeps only a few candidates to sort. Few things are put in order by
// counting, for each, those before it: no branch depends on the data.
#include "select.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "pair_order.h"
#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "select.cc"
#include "hwy/foreach_target.h"
#include "lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {

using WideTag = hn::CappedTag<std::uint64_t, kKeySlack>;
constexpr std::int64_t kWideLanes = static_cast<std::int64_t>(hn::MaxLanes(WideTag()));
constexpr std::int64_t kMarkBytes = kLanes >= 8 ? kLanes / 8 : 1;  // of one vector

// maxima: (16 * strands); strand s, lane l holds the largest of scores[(s + i * strands) * 16 + l]
// over whole sixteens. NaN never wins.
void group_maxima_target(const float* scores, std::int64_t n, std::int64_t strands, float* maxima) {
  const FloatTag d;
  const auto larger = [](Floats x, Floats best) {
    return hn::IfThenElse(hn::Gt(x, best), x, best);
  };
  const std::int64_t step = strands * kVirtualLanes;
  for (std::int64_t s = 0; s < strands; ++s) {
    for (std::int64_t p = 0; p < kParts; ++p) {
      // Two chains: each waits for its last compare.
      Floats even = hn::Set(d, -HUGE_VALF), odd = even;
      const float* first = scores + p * kLanes;
      std::int64_t i = s * kVirtualLanes;
      for (; i + step + kVirtualLanes <= n; i += 2 * step) {
        even = larger(hn::LoadU(d, first + i), even);
        odd = larger(hn::LoadU(d, first + i + step), odd);
      }
      if (i + kVirtualLanes <= n) even = larger(hn::LoadU(d, first + i), even);
      hn::StoreU(larger(odd, even), d, maxima + s * kVirtualLanes + p * kLanes);
    }
  }
}

// The k-th largest of n values without NaN, n a multiple of 16: the smallest that less than k
// exceed.
float kth_largest_target(const float* values, std::int64_t n, std::int64_t k) {
  const FloatTag d;
  const auto few = hn::Set(d, static_cast<float>(k));
  auto kth = hn::Set(d, HUGE_VALF);
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const auto mine = hn::LoadU(d, values + i);
    auto exceed = hn::Zero(d);
    for (std::int64_t j = 0; j < n; ++j) {
      const auto more = hn::Add(exceed, hn::Set(d, 1.0f));
      exceed = hn::IfThenElse(hn::Gt(hn::Set(d, values[j]), mine), more, exceed);
    }
    kth = hn::Min(kth, hn::IfThenElse(hn::Lt(exceed, few), mine, kth));
  }
  return hn::GetLane(hn::MinOfLanes(d, kth));
}

// index: of all scores >= threshold, ascending; room for n and 4 more. marks: room for n / kLanes
// * kMarkBytes, rounded up to 8. Returns how many.
std::int64_t collect_target(const float* scores, std::int64_t n, float threshold,
                            std::uint8_t* marks, std::uint32_t* index) {
  const FloatTag d;
  const auto least = hn::Set(d, threshold);
  std::int64_t bytes = 0, i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    bytes += static_cast<std::int64_t>(
        hn::StoreMaskBits(d, hn::Ge(hn::LoadU(d, scores + i), least), marks + bytes));
  }
  for (std::int64_t b = bytes; b % 8 != 0; ++b) marks[b] = 0;
  std::int64_t count = 0;
  for (std::int64_t b = 0; b < bytes; b += 8) {
    std::uint64_t bits;
    hwy::CopyBytes<8>(marks + b, &bits);
    const auto first = static_cast<std::uint32_t>(b / kMarkBytes * kLanes);
    const auto place = [&](std::uint64_t set) {
      const auto bit = static_cast<std::uint32_t>(hwy::Num0BitsBelowLS1Bit_Nonzero64(set));
      if constexpr (kLanes >= 8) return first + bit;
      return first + bit / 8 * static_cast<std::uint32_t>(kLanes) + bit % 8;
    };
    const auto here = static_cast<std::int64_t>(hwy::PopCount(bits));
    // Four at once, wanted or not, and only then a branch: rarely are there more.
    constexpr std::uint64_t kGuard = std::uint64_t{1} << 63;  // for what is not wanted
    for (int at = 0; at < 4; ++at) {
      index[count + at] = place(bits | kGuard);
      bits &= bits - 1;
    }
    if (HWY_UNLIKELY(here > 4)) {
      for (std::int64_t at = 4; at < here; ++at) {
        index[count + at] = place(bits);
        bits &= bits - 1;
      }
    }
    count += here;
  }
  for (; i < n; ++i) {
    if (scores[i] >= threshold) index[count++] = static_cast<std::uint32_t>(i);
  }
  return count;
}

void rank_keys_target(const std::uint64_t* keys, std::int64_t n, std::uint64_t* rank) {
  const WideTag d;
  const auto one = hn::Set(d, 1);
  for (std::int64_t i = 0; i < n; i += kWideLanes) {
    const auto mine = hn::LoadU(d, keys + i);
    auto even = hn::Zero(d), odd = hn::Sub(hn::Zero(d), one);  // itself does not count
    std::int64_t j = 0;
    const auto add = [&](std::int64_t at, auto& before) {
      before = hn::IfThenElse(hn::Lt(hn::Set(d, keys[at]), mine), before, hn::Add(before, one));
    };
    for (; j + 2 <= n; j += 2) {
      add(j, even);
      add(j + 1, odd);
    }
    if (j < n) add(j, even);
    HWY_ALIGN std::uint64_t sums[kWideLanes];
    hn::Store(hn::Add(even, odd), d, sums);
    for (std::int64_t l = 0; l < kWideLanes && i + l < n; ++l) rank[i + l] = sums[l];
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(group_maxima_target);
HWY_EXPORT(kth_largest_target);
HWY_EXPORT(collect_target);
HWY_EXPORT(rank_keys_target);

namespace {

// Up to so many are ordered by counting.
constexpr std::int64_t kMostCounted = 64;

template <class T>
T* room_for(std::vector<T>& values, std::int64_t n) {
  if (values.size() < static_cast<std::size_t>(n)) values.resize(static_cast<std::size_t>(n));
  return values.data();
}

// At most the k-th largest score, and above minus infinity.
float threshold_of(const float* scores, std::int64_t n, std::int64_t k, SelectScratch& scratch) {
  constexpr float kLeast = std::numeric_limits<float>::lowest();
  // Twice as many groups as k leave about 1.4 k candidates.
  const std::int64_t strands = (2 * k + 15) / 16;
  const std::int64_t groups = 16 * strands;
  if (n < 2 * groups) return kLeast;
  float* maxima = room_for(scratch.maxima, groups);
  HWY_DYNAMIC_DISPATCH(group_maxima_target)(scores, n, strands, maxima);
  if (groups <= kMostCounted) {
    return std::max(kLeast, HWY_DYNAMIC_DISPATCH(kth_largest_target)(maxima, groups, k));
  }
  std::nth_element(maxima, maxima + (k - 1), maxima + groups, std::greater<>());
  return std::max(kLeast, maxima[k - 1]);
}

}  // namespace

void rank_keys(std::uint64_t* keys, std::int64_t n, std::uint64_t* rank) {
  std::fill_n(keys + n, kKeySlack, 0);
  HWY_DYNAMIC_DISPATCH(rank_keys_target)(keys, n, rank);
}

void select_top(const float* scores, std::int64_t n, std::int64_t k, SelectScratch& scratch,
                Side& side) {
  side.index.clear();
  side.score.clear();
  if (n <= 0 || k <= 0) return;
  std::uint32_t* index = room_for(scratch.index, n + 4);
  const std::int64_t count = HWY_DYNAMIC_DISPATCH(collect_target)(
      scores, n, threshold_of(scores, n, k, scratch), room_for(scratch.marks, n + 8), index);
  const auto kept = static_cast<std::size_t>(std::min(count, k));
  side.index.resize(kept);
  side.score.resize(kept);
  std::uint64_t* keys = room_for(scratch.keys, count + static_cast<std::int64_t>(kKeySlack));
  for (std::int64_t i = 0; i < count; ++i) keys[i] = order_key(scores[index[i]], index[i]);
  if (count <= kMostCounted) {
    std::uint64_t rank[kMostCounted];
    rank_keys(keys, count, rank);
    for (std::int64_t i = 0; i < count; ++i) {
      if (rank[i] < kept) side.index[rank[i]] = index[i];
    }
  } else {
    if (count > 4 * k) std::nth_element(keys, keys + kept, keys + count, std::greater<>());
    std::sort(keys, keys + (count > 4 * k ? static_cast<std::int64_t>(kept) : count),
              std::greater<>());
    for (std::size_t i = 0; i < kept; ++i) {
      side.index[i] = index_of_key(keys[i]);
    }
  }
  for (std::size_t i = 0; i < kept; ++i) side.score[i] = scores[side.index[i]];
}

}  // namespace perennial::kernels
#endif
