// SPDX-License-Identifier: Apache-2.0
// The best k of one side's scores, by one thread block. A lower bound of the k-th best (from maxima
// of groups) keeps most scores out of a small buffer; whenever the buffer may overflow it is cut
// back to its best k, whose last is the new bound. Exact for any scores: keys are unique.
#pragma once

#include <cstdint>

#include "block.h"
#include "pair_order.h"

namespace perennial::kernels::cuda {

constexpr std::int64_t kBufferKeys = 1024;
constexpr std::int64_t kStepScores = 512;   // read between two looks at the buffer
constexpr std::int64_t kMostCounted = 256;  // keys that are ordered by counting those before

// Shared memory of a selection.
struct SelectScratch {
  std::uint64_t* buffer = nullptr;   // (kBufferKeys)
  std::uint64_t* sorted = nullptr;   // (k)
  std::uint64_t* bound = nullptr;    // (1)
  std::uint32_t* counter = nullptr;  // (1)
};

// The best of a side, best first, at most k, above minus infinity.
struct BlockSide {
  std::uint32_t* index = nullptr;  // (k), shared
  float* score = nullptr;
  std::int64_t size = 0;
};

__device__ inline std::int64_t power_of_two(std::int64_t n) {
  std::int64_t p = 1;
  while (p < n) p *= 2;
  return p;
}

// Bitonic sort, best first, of `size` items (a power of two); before(a, b) compares and swap(a, b)
// exchanges the items at two places.
template <class Before, class Swap>
__device__ inline void bitonic(const Block& block, std::int64_t size, Before before, Swap swap) {
  for (std::int64_t span = 2; span <= size; span *= 2) {
    for (std::int64_t step = span / 2; step > 0; step /= 2) {
      block.each(size / 2, [&](std::int64_t pair) {
        // step is a power of two: pair / step * (2 step) + pair % step.
        const std::int64_t within = pair & (step - 1), low = (pair - within) * 2 + within;
        const std::int64_t high = low + step;
        const bool ascending = (low & span) != 0;  // of every second run
        if (ascending ? before(low, high) : before(high, low)) swap(low, high);
      });
    }
  }
}

// sorted: the best min(n, k) of keys[0 .. n), descending; keys are overwritten. n <= kBufferKeys.
__device__ inline void sort_keys(const Block& block, std::uint64_t* keys, std::int64_t n,
                                 std::int64_t k, std::uint64_t* sorted) {
  if (n <= kMostCounted) {
    block.each(n, [&](std::int64_t i) {
      const std::uint64_t mine = keys[i];
      std::int64_t rank = 0;
      for (std::int64_t j = 0; j < n; ++j) rank += keys[j] > mine;
      if (rank < k) sorted[rank] = mine;
    });
    return;
  }
  const std::int64_t size = power_of_two(n);
  block.each(size - n, [&](std::int64_t i) { keys[n + i] = 0; });
  bitonic(
      block, size, [&](std::int64_t a, std::int64_t b) { return keys[a] > keys[b]; },
      [&](std::int64_t a, std::int64_t b) {
        const std::uint64_t kept = keys[a];
        keys[a] = keys[b];
        keys[b] = kept;
      });
  block.each(n < k ? n : k, [&](std::int64_t i) { sorted[i] = keys[i]; });
}

// A key that at least k scores reach, or 0: the k-th largest of the maxima of groups.
__device__ inline std::uint64_t lower_bound(const Block& block, const float* scores, std::int64_t n,
                                            std::int64_t k, const SelectScratch& scratch) {
  const std::int64_t groups = k > 64 ? 256 : 128;  // twice as many as k, or more
  if (n < 2 * groups) return 0;
  std::uint64_t* maxima = scratch.buffer;
  block.once([&] { *scratch.bound = 0; });
  block.each(groups, [&](std::int64_t g) {
    std::uint64_t best = 0;
    for (std::int64_t i = g; i < n; i += groups) {
      const float score = scores[i];
      const std::uint64_t key =
          is_lowest(score) ? 0 : order_key(score, static_cast<std::uint32_t>(i));
      best = key > best ? key : best;
    }
    maxima[g] = best;
  });
  block.each(groups, [&](std::int64_t g) {
    const std::uint64_t mine = maxima[g];
    std::int64_t larger = 0;
    for (std::int64_t j = 0; j < groups; ++j) larger += maxima[j] > mine;
    if (larger == k - 1 && mine != 0) *scratch.bound = mine;  // keys are unique: one thread
  });
  return block.read(scratch.bound);
}

// side: the best min(k, n) of scores[0 .. n) above minus infinity, in the order of pair_order.h.
__device__ inline void select_side(const Block& block, const float* scores, std::int64_t n,
                                   std::int64_t k, const SelectScratch& scratch, BlockSide& side) {
  std::uint64_t bound = lower_bound(block, scores, n, k, scratch);
  block.once([&] { *scratch.counter = 0; });
  for (std::int64_t base = 0; base < n; base += kStepScores) {
    const std::int64_t here = n - base < kStepScores ? n - base : kStepScores;
    block.each(here, [&](std::int64_t j) {
      const std::int64_t i = base + j;
      const float score = scores[i];
      if (is_lowest(score)) return;
      const std::uint64_t key = order_key(score, static_cast<std::uint32_t>(i));
      if (key >= bound) scratch.buffer[block.reserve(scratch.counter, 1)] = key;
    });
    const std::int64_t count = block.read(scratch.counter);
    if (count + kStepScores <= kBufferKeys || base + here >= n) continue;
    // More than kBufferKeys - kStepScores >= k are there.
    sort_keys(block, scratch.buffer, count, k, scratch.sorted);
    block.each(k, [&](std::int64_t i) { scratch.buffer[i] = scratch.sorted[i]; });
    bound = block.read(scratch.sorted + (k - 1));
    block.once([&] { *scratch.counter = static_cast<std::uint32_t>(k); });
  }
  const std::int64_t count = block.read(scratch.counter);
  side.size = count < k ? count : k;
  sort_keys(block, scratch.buffer, count, k, scratch.sorted);
  block.each(side.size, [&](std::int64_t i) {
    const std::uint32_t index = index_of_key(scratch.sorted[i]);
    side.index[i] = index;
    side.score[i] = scores[index];
  });
}

}  // namespace perennial::kernels::cuda
