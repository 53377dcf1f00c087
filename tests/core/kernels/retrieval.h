// SPDX-License-Identifier: Apache-2.0
// A retrieval problem with its storage, and the table of cases every retrieval test runs through.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "inputs.h"
#include "perennial/kernels/retrieve.h"

namespace perennial::kernels {

struct RetrievalCase {
  std::string name;
  std::int64_t tokens = 1, heads = 1, k = 1, dim = 1;
  std::int64_t n_row = 1, n_col = 1;
  bool common_keys = true;
  std::vector<KeySegment> segments;
};

// Reference, CPU and CUDA kernels run through it.
inline std::vector<RetrievalCase> retrieval_cases() {
  RetrievalCase many_segments{"many_segments", 3, 1, 128, 4, 1200, 100, true, {}};
  for (std::int64_t s = 0; s < 12; ++s) {
    many_segments.segments.push_back(
        {s * 100, 100, s % 3 == 0 ? 100 : 17, static_cast<std::uint32_t>(s * 150)});
  }
  return {
      {"one_expert", 1, 1, 1, 1, 1, 1, true, {{0, 1, 1, 0}}},
      {"no_tokens", 0, 2, 4, 8, 16, 16, true, {{0, 16, 16, 0}}},
      {"k_is_one", 7, 2, 1, 5, 9, 11, true, {{0, 9, 11, 0}}},
      {"k_is_all", 3, 2, 35, 4, 5, 7, false, {{0, 5, 7, 0}}},
      {"k_above_rows_and_cols", 4, 1, 20, 3, 6, 5, true, {{0, 6, 5, 0}}},
      {"one_row", 5, 2, 8, 16, 1, 40, true, {{0, 1, 40, 3}}},
      {"one_col", 5, 2, 8, 16, 40, 1, true, {{0, 40, 1, 3}}},
      {"odd_sizes", 9, 3, 13, 17, 77, 101, false, {{0, 77, 101, 0}}},
      {"wide", 70, 2, 16, 32, 120, 90, true, {{0, 120, 90, 0}}},
      {"common", 13, 2, 16, 16, 300, 260, false, {{0, 300, 260, 0}}},
      {"large_k", 2, 1, 128, 8, 530, 520, true, {{0, 530, 520, 0}}},
      {"huge_ids",
       4,
       2,
       9,
       6,
       20,
       20,
       true,
       {{0, 5, 20, 6}, {5, 5, 20, 0x80000000u}, {10, 10, 20, 0xFFFFFFF6u}}},
      {"generations",
       6,
       2,
       16,
       8,
       90,
       64,
       false,
       {{0, 20, 10, 0}, {25, 1, 64, 25}, {26, 40, 10, 26}, {70, 20, 33, 1000}}},
      {"masked_first_rows", 5, 1, 5, 7, 60, 12, true, {{31, 29, 3, 31}}},
      {"empty_segment", 3, 1, 4, 2, 8, 8, true, {{0, 0, 8, 0}, {0, 4, 0, 0}, {4, 4, 8, 4}}},
      // Sides that fill what a device's block keeps, and tiles of tokens, keys and terms, full ones
      // and not.
      {"full_buffer", 1, 1, 128, 3, 1500, 300, true, {{0, 1500, 300, 0}}},
      many_segments,
      {"tall_tile", 131, 1, 16, 40, 130, 70, false, {{0, 130, 70, 0}}},
      {"full_tiles", 64, 1, 16, 64, 128, 128, false, {{0, 128, 128, 0}}},
      {"beyond_tiles", 67, 2, 16, 72, 129, 36, false, {{0, 129, 36, 0}}},
      {"odd_terms", 17, 1, 9, 37, 260, 31, true, {{0, 260, 31, 0}}},
  };
}

struct Retrieval {
  RetrievalCase shape;
  std::vector<float> query, row_keys, col_keys;
  std::vector<std::int64_t> ids;
  std::vector<float> scores;
  std::vector<std::int32_t> row_index;

  // `make(n, seed)` gives n values.
  template <class Make>
  Retrieval(const RetrievalCase& problem, Make make) : shape(problem) {
    const std::int64_t sets = shape.common_keys ? 1 : shape.heads;
    query = make(shape.tokens * shape.heads * 2 * shape.dim, 11);
    row_keys = make(sets * shape.n_row * shape.dim, 12);
    col_keys = make(sets * shape.n_col * shape.dim, 13);
    const auto slots = static_cast<std::size_t>(shape.tokens * shape.heads * shape.k);
    ids.assign(slots, -1);
    scores.assign(slots, -1);
    row_index.assign(slots, -1);
  }

  // Packs the keys as they are now.
  RetrieveArgs args() {
    return {.heads = shape.heads,
            .k = shape.k,
            .sub_dim = shape.dim,
            .query = query.data(),
            .rows = side(shape.n_row, row_keys, row_panels),
            .cols = side(shape.n_col, col_keys, col_panels),
            .segments = shape.segments,
            .ids = ids.data(),
            .scores = scores.data(),
            .row_index = row_index.data()};
  }
  void run() { retrieve(args(), 0, shape.tokens, 0, shape.heads); }
  std::int64_t row_stride() const { return shape.common_keys ? 0 : shape.n_row * shape.dim; }
  std::int64_t col_stride() const { return shape.common_keys ? 0 : shape.n_col * shape.dim; }

 private:
  SubKeys side(std::int64_t n, const std::vector<float>& keys, std::vector<float>& panels) const {
    const std::int64_t sets = shape.common_keys ? 1 : shape.heads;
    const std::int64_t floats = panel_floats(n, shape.dim);
    panels.assign(static_cast<std::size_t>(sets * floats), -1);
    for (std::int64_t set = 0; set < sets; ++set) {
      pack_panels(n, shape.dim, keys.data() + set * n * shape.dim, panels.data() + set * floats);
    }
    return {n, !shape.common_keys, keys.data(), panels.data()};
  }
  std::vector<float> row_panels, col_panels;
};

}  // namespace perennial::kernels
