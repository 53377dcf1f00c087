// SPDX-License-Identifier: Apache-2.0
// A chunk of tokens on its way through retrieval, as its kernels see it. For .cu files only.
#pragma once

#include <cstdint>

#include "perennial/kernels/cuda/retrieve.h"

namespace perennial::kernels::cuda {

// Scores of (token, head): rows (R, padded to 4), then columns.
struct Chunk {
  std::int64_t tokens = 0, heads = 0, dim = 0;
  std::int64_t rows = 0, cols = 0;  // keys in use
  std::int64_t row_floats = 0, floats = 0;
  const float* query = nullptr;
  const BFloat16* rounded_query = nullptr;
  SubKeys row_keys, col_keys;
  float* scores = nullptr;
};

// What one block of a kernel of scores works on: a tile of keys of one side, a head, tokens from
// first_token on. grid: (key tiles of rows, then of columns; token tiles; heads).
struct ScoreTile {
  bool is_row;
  int head, n;  // keys in use
  int first_key, first_token;

  __device__ ScoreTile(const Chunk& c, int tile_keys, int tile_tokens) {
    const int row_tiles = (static_cast<int>(c.rows) + tile_keys - 1) / tile_keys;
    const int key_tile = static_cast<int>(blockIdx.x);
    is_row = key_tile < row_tiles;
    head = static_cast<int>(blockIdx.z);
    n = static_cast<int>(is_row ? c.rows : c.cols);
    first_key = (is_row ? key_tile : key_tile - row_tiles) * tile_keys;
    first_token = static_cast<int>(blockIdx.y) * tile_tokens;
  }
  // The head's keys, and the side's part of the head's query of token 0.
  template <class T>
  __device__ const T* keys(const Chunk& c, const T* rows, const T* cols) const {
    const SubKeys& side = is_row ? c.row_keys : c.col_keys;
    return (is_row ? rows : cols) + (side.per_head ? head * side.count * c.dim : 0);
  }
  template <class T>
  __device__ const T* query(const Chunk& c, const T* query) const {
    return query + head * 2 * c.dim + (is_row ? 0 : c.dim);
  }
  // Where the scores of a token go, from key 0 of the side on.
  __device__ float* scores(const Chunk& c, int token) const {
    return c.scores + (token * c.heads + head) * c.floats + (is_row ? 0 : c.row_floats);
  }
};

}  // namespace perennial::kernels::cuda
