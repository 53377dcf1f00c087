// SPDX-License-Identifier: Apache-2.0
// Product-key retrieval: the exact top-K experts of a token, per head (PEER, arXiv 2407.04153, eq.
// 1; Lample et al. 2019). Symbols: B tokens, H heads, K top-k, D = d_key / 2 (width of a sub-key).
#pragma once

#include <cstdint>
#include <span>

#include "perennial/kernels/key_panels.h"
#include "perennial/kernels/key_segment.h"

namespace perennial::kernels {

// One side's sub-keys.
struct SubKeys {
  std::int64_t count = 0;         // n
  bool per_head = true;           // a set for each head, or one for all
  const float* keys = nullptr;    // (H or 1, n, D); the backward's
  const float* panels = nullptr;  // (H or 1, panel_floats(n, D)): pack_panels of them; retrieve's

  const float* keys_of(std::int64_t head, std::int64_t dim) const {
    return keys + (per_head ? head * count * dim : 0);
  }
  const float* panels_of(std::int64_t head, std::int64_t dim) const {
    return panels + (per_head ? head * panel_floats(count, dim) : 0);
  }
};

struct RetrieveArgs {
  std::int64_t heads = 1;
  std::int64_t k = 1;            // 1 <= k <= number of visible experts
  std::int64_t sub_dim = 1;      // D
  const float* query = nullptr;  // (B, H, 2 D): row half, then column half
  SubKeys rows;
  SubKeys cols;
  std::span<const KeySegment> segments;  // row ids ascend from segment to segment, unsigned

  std::int64_t* ids = nullptr;        // (B, H, K), out: best first
  float* scores = nullptr;            // (B, H, K), out: float(row score + column score)
  std::int32_t* row_index = nullptr;  // (B, H, K), out: index into row_keys (for the backward)
};

// Order everywhere: score descending, then id ascending (row, then column, as unsigned numbers).
// Scores of a pair compare as the exact sum of its two float scores: by their sum in double and,
// where that ties, by what its rounding lost. This makes the pruning exact: only ranks (a, b), from
// 0, with (a + 1)(b + 1) <= K can win. Scores are score_panels'; -0 equals 0. NaN counts as minus
// infinity, and pairs with a side of minus infinity come last, by id alone: a NaN query yields the
// K smallest ids and NaN scores, never a wild index. Plus infinity counts as 2^160, so that such
// pairs still order by their other side. Tokens [begin, end). Thread-safe for disjoint ranges: no
// state outlives the call. Scratch is allocated per call (O(n_row + n_col) floats a token of a
// tile). A segment has less than 2^32 rows and columns; empty ones are allowed. Heads
// [head_begin, head_end).
void retrieve(const RetrieveArgs& args, std::int64_t begin, std::int64_t end,
              std::int64_t head_begin, std::int64_t head_end);

// Scatters dscores back: dquery (B, H, 2 D), overwritten for tokens [begin, end).
void retrieve_backward_query(const RetrieveArgs& args, const float* dscores, std::int64_t begin,
                             std::int64_t end, float* dquery);
// drow_keys, dcol_keys: shaped as the keys, accumulated into (the caller zeroes); pairs in
// ascending (token, head, slot) order. Common keys add all heads. Heads [head_begin, head_end):
// with common keys call it once with all heads. Column indices are the low words of ids.
void retrieve_backward_keys(const RetrieveArgs& args, const float* dscores, std::int64_t tokens,
                            std::int64_t head_begin, std::int64_t head_end, float* drow_keys,
                            float* dcol_keys);

}  // namespace perennial::kernels
