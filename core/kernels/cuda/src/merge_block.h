// SPDX-License-Identifier: Apache-2.0
// Product-key retrieval of one token and head by one thread block, from the scores of both sides:
// the best of each side, then the pairs of ranks (a + 1)(b + 1) <= K, segment by segment, ordered
// exactly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "block.h"
#include "pair_order.h"
#include "perennial/kernels/expert_layout.h"
#include "perennial/kernels/key_segment.h"
#include "select_block.h"

namespace perennial::kernels::cuda {

// Pairs of ranks that can win: the sum over a of floor(k / a).
PERENNIAL_HOST_DEVICE constexpr std::int64_t pruned_pairs(std::int64_t k) {
  std::int64_t pairs = 0;
  for (std::int64_t a = 1; a <= k; ++a) pairs += k / a;
  return pairs;
}

// Pairs with no lowest side, side by side.
struct Pairs {
  double* sum = nullptr;  // rounded
  std::int64_t* id = nullptr;
  float *row = nullptr, *col = nullptr;  // scores
  std::int32_t* row_index = nullptr;

  __device__ inline void set(std::int64_t at, float row_score, float col_score,
                             std::int64_t pair_id, std::int32_t index) const {
    sum[at] = order_value(row_score) + order_value(col_score);
    id[at] = pair_id;
    row[at] = row_score;
    col[at] = col_score;
    row_index[at] = index;
  }
  // Pair::before.
  __device__ inline bool before(std::int64_t a, std::int64_t b) const {
    if (sum[a] != sum[b]) return sum[a] > sum[b];
    return Pair(row[a], col[a], id[a]).before(Pair(row[b], col[b], id[b]));
  }
  __device__ inline void copy(std::int64_t to, const Pairs& from, std::int64_t at) const {
    sum[to] = from.sum[at];
    id[to] = from.id[at];
    row[to] = from.row[at];
    col[to] = from.col[at];
    row_index[to] = from.row_index[at];
  }
};

// What one token and head reads and writes, in device memory.
struct TokenHead {
  const float* row_scores = nullptr;
  const float* col_scores = nullptr;
  std::int64_t* ids = nullptr;  // (K), as the others
  float* scores = nullptr;
  std::int32_t* row_index = nullptr;
};

// The shared memory of a block, laid out from one 16-byte aligned start.
struct MergeScratch {
  SelectScratch select;
  BlockSide rows, cols;
  Pairs candidates, best;  // (capacity), (K)
  std::uint16_t* order = nullptr;

  // Also counts: with a null start, `bytes` is what is needed.
  PERENNIAL_HOST_DEVICE static MergeScratch at(unsigned char* start, std::int64_t k,
                                               std::size_t* bytes) {
    MergeScratch s;
    const std::int64_t capacity = k + pruned_pairs(k);
    std::int64_t places = 1;
    while (places < capacity) places *= 2;
    std::size_t used = 0;
    const auto take = [&](auto*& pointer, std::int64_t n) {  // sizes descend: all stay aligned
      using T = typename std::remove_reference<decltype(*pointer)>::type;
      pointer = reinterpret_cast<T*>(start + used);
      used += static_cast<std::size_t>(n) * sizeof(T);
    };
    take(s.select.buffer, kBufferKeys);
    take(s.select.sorted, k);
    take(s.select.bound, 1);
    for (Pairs* pairs : {&s.candidates, &s.best}) {
      const std::int64_t n = pairs == &s.best ? k : capacity;
      take(pairs->sum, n);
      take(pairs->id, n);
    }
    for (Pairs* pairs : {&s.candidates, &s.best}) {
      const std::int64_t n = pairs == &s.best ? k : capacity;
      take(pairs->row, n);
      take(pairs->col, n);
      take(pairs->row_index, n);
    }
    take(s.select.counter, 1);
    for (BlockSide* side : {&s.rows, &s.cols}) {
      take(side->index, k);
      take(side->score, k);
    }
    take(s.order, places);
    if (bytes != nullptr) *bytes = used;
    return s;
  }
};

// best: the first min(n, k) of the n candidates, in order. Returns how many.
__device__ inline std::int64_t order_pairs(const Block& block, std::int64_t n, std::int64_t k,
                                           const MergeScratch& s) {
  const Pairs& pairs = s.candidates;
  const std::int64_t kept = n < k ? n : k;
  if (n <= kMostCounted) {
    block.each(n, [&](std::int64_t i) {
      std::int64_t rank = 0;
      for (std::int64_t j = 0; j < n; ++j) rank += pairs.before(j, i);
      if (rank < kept) s.best.copy(rank, pairs, i);
    });
    return kept;
  }
  const std::int64_t size = power_of_two(n);
  block.each(size, [&](std::int64_t i) { s.order[i] = static_cast<std::uint16_t>(i); });
  bitonic(
      block, size,
      [&](std::int64_t a, std::int64_t b) {
        const std::int64_t x = s.order[a], y = s.order[b];
        if (x >= n || y >= n) return x < n;  // what is past the end comes last
        return pairs.before(x, y);
      },
      [&](std::int64_t a, std::int64_t b) {
        const std::uint16_t kept_place = s.order[a];
        s.order[a] = s.order[b];
        s.order[b] = kept_place;
      });
  block.each(kept, [&](std::int64_t i) { s.best.copy(i, pairs, s.order[i]); });
  return kept;
}

// The pairs with a lowest side, in id order, from place `taken` on. Fewer than k pairs are skipped
// on the way, since fewer than k without one exist.
__device__ inline void fill_lowest(const TokenHead& token, const KeySegment* segments,
                                   std::int64_t segment_count, std::int64_t k, std::int64_t taken) {
  for (std::int64_t s = 0; s < segment_count && taken < k; ++s) {
    const KeySegment& segment = segments[s];
    const float* row_scores = token.row_scores + segment.key_begin;
    for (std::int64_t r = 0; r < segment.rows && taken < k; ++r) {
      for (std::int64_t c = 0; c < segment.cols && taken < k; ++c) {
        if (!is_lowest(row_scores[r]) && !is_lowest(token.col_scores[c])) continue;
        token.ids[taken] = expert_id(segment.first_row + static_cast<std::uint32_t>(r),
                                     static_cast<std::uint32_t>(c));
        token.scores[taken] = row_scores[r] + token.col_scores[c];
        token.row_index[taken++] = static_cast<std::int32_t>(segment.key_begin + r);
      }
    }
  }
}

__device__ inline void retrieve_token(const Block& block, const TokenHead& token,
                                      const KeySegment* segments, std::int64_t segment_count,
                                      std::int64_t k, MergeScratch s) {
  std::int64_t kept = 0, width = -1;
  for (std::int64_t index = 0; index < segment_count; ++index) {
    const KeySegment segment = segments[index];
    if (segment.rows <= 0 || segment.cols <= 0) continue;
    select_side(block, token.row_scores + segment.key_begin, segment.rows, k, s.select, s.rows);
    if (segment.cols != width) {
      width = segment.cols;
      select_side(block, token.col_scores, width, k, s.select, s.cols);
    }
    block.each(kept, [&](std::int64_t i) { s.candidates.copy(i, s.best, i); });
    block.once([&] { *s.select.counter = static_cast<std::uint32_t>(kept); });
    block.each(s.rows.size, [&](std::int64_t a) {
      const std::int64_t most = k / (a + 1);
      const std::int64_t pairs = most < s.cols.size ? most : s.cols.size;
      const std::int64_t first = block.reserve(s.select.counter, static_cast<std::uint32_t>(pairs));
      for (std::int64_t b = 0; b < pairs; ++b) {
        s.candidates.set(first + b, s.rows.score[a], s.cols.score[b],
                         expert_id(segment.first_row + s.rows.index[a], s.cols.index[b]),
                         static_cast<std::int32_t>(segment.key_begin + s.rows.index[a]));
      }
    });
    kept = order_pairs(block, block.read(s.select.counter), k, s);
  }
  block.each(kept, [&](std::int64_t i) {
    token.ids[i] = s.best.id[i];
    token.scores[i] = s.best.row[i] + s.best.col[i];
    token.row_index[i] = s.best.row_index[i];
  });
  if (kept < k) {
    block.once([&] { fill_lowest(token, segments, segment_count, k, kept); });
  }
}

}  // namespace perennial::kernels::cuda
