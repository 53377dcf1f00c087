// SPDX-License-Identifier: Apache-2.0
// Scores of bf16 queries and sub-keys by tensor cores: products are exact, sums are fp32 in the
// order of the hardware. For .cu files only.
#pragma once

#include <cuda_bf16.h>
#include <mma.h>

#include "launch.h"
#include "perennial/kernels/bfloat16.h"
#include "score_chunk.h"

namespace perennial::kernels::cuda {
namespace tensor {

namespace wmma = nvcuda::wmma;

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kKeys = 128;  // of a tile
constexpr int kSide = 16;   // of a fragment
constexpr int kTerms = 32;  // of the sums, a step
constexpr int kGroup = 8;   // elements of 16 bytes
// Elements of a row of a tile in shared memory: fragments start at multiples of 32 bytes, and rows
// lie in different banks.
constexpr int kStride = kTerms + 8;

static_assert(sizeof(BFloat16) == sizeof(__nv_bfloat16));

// Eight elements of a row, from `at` on; zeros beyond `dim` and where there is no row.
template <bool kWide>
__device__ __forceinline__ uint4 load_group(const BFloat16* row, bool there, std::int64_t at,
                                            std::int64_t dim) {
  if constexpr (kWide) {  // dim is a multiple of 8, and rows start at multiples of 16 bytes
    return there && at < dim ? *reinterpret_cast<const uint4*>(row + at) : uint4{};
  } else {
    unsigned words[4];
    for (int w = 0; w < 4; ++w) {
      const std::int64_t i = at + 2 * w;
      const unsigned low = there && i < dim ? row[i].bits : 0;
      const unsigned high = there && i + 1 < dim ? row[i + 1].bits : 0;
      words[w] = low | high << 16;
    }
    return {words[0], words[1], words[2], words[3]};
  }
}

// A tile of kTokens tokens by kKeys keys; a warp has kFragments x kFragments fragments of it. See
// ScoreTile for the grid.
template <int kTokens, bool kWide>
__global__ void __launch_bounds__(kThreads, kTokens == 64 ? 2 : 3) tensor_scores_kernel(Chunk c) {
  constexpr int kFragments = kTokens == 64 ? 2 : 1;
  constexpr int kWarpsOfKeys = kKeys / (kSide * kFragments);
  static_assert(kWarps / kWarpsOfKeys * kSide * kFragments == kTokens);
  __shared__ __align__(32) __nv_bfloat16 q[kTokens][kStride];
  __shared__ __align__(32) __nv_bfloat16 k[kKeys][kStride];
  __shared__ __align__(32) float sums[kWarps][kSide][kSide];
  const ScoreTile tile(c, kKeys, kTokens);
  const BFloat16* keys = tile.keys(c, c.row_keys.rounded, c.col_keys.rounded);
  const BFloat16* query = tile.query(c, c.rounded_query);
  const std::int64_t query_stride = c.heads * 2 * c.dim;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_token = warp / kWarpsOfKeys * kSide * kFragments;
  const int warp_key = warp % kWarpsOfKeys * kSide * kFragments;

  wmma::fragment<wmma::accumulator, kSide, kSide, kSide, float> sum[kFragments][kFragments];
  for (auto& row : sum) {
    for (auto& fragment : row) wmma::fill_fragment(fragment, 0.0f);
  }
  for (std::int64_t base = 0; base < c.dim; base += kTerms) {
    for (int at = threadIdx.x; at < (kTokens + kKeys) * kTerms / kGroup; at += kThreads) {
      const int line = at / (kTerms / kGroup), column = at % (kTerms / kGroup) * kGroup;
      const bool of_query = line < kTokens;
      const int token = tile.first_token + line;
      const int key = tile.first_key + line - kTokens;
      const bool there = of_query ? token < c.tokens : key < tile.n;
      const BFloat16* row = of_query ? query + token * query_stride : keys + key * c.dim;
      __nv_bfloat16* to = of_query ? &q[line][column] : &k[line - kTokens][column];
      *reinterpret_cast<uint4*>(to) = load_group<kWide>(row, there, base + column, c.dim);
    }
    __syncthreads();
    for (int step = 0; step < kTerms; step += kSide) {
      wmma::fragment<wmma::matrix_a, kSide, kSide, kSide, __nv_bfloat16, wmma::row_major> a;
      wmma::fragment<wmma::matrix_b, kSide, kSide, kSide, __nv_bfloat16, wmma::col_major>
          b[kFragments];
#pragma unroll
      for (int j = 0; j < kFragments; ++j) {
        wmma::load_matrix_sync(b[j], &k[warp_key + j * kSide][step], kStride);
      }
#pragma unroll
      for (int i = 0; i < kFragments; ++i) {
        wmma::load_matrix_sync(a, &q[warp_token + i * kSide][step], kStride);
#pragma unroll
        for (int j = 0; j < kFragments; ++j) wmma::mma_sync(sum[i][j], a, b[j], sum[i][j]);
      }
    }
    __syncthreads();
  }

  // By way of shared memory, because the last tiles stick out.
#pragma unroll
  for (int i = 0; i < kFragments; ++i) {
#pragma unroll
    for (int j = 0; j < kFragments; ++j) {
      wmma::store_matrix_sync(&sums[warp][0][0], sum[i][j], kSide, wmma::mem_row_major);
      __syncwarp();
      const int row = lane / 2, column = lane % 2 * 8;
      const int token = tile.first_token + warp_token + i * kSide + row;
      const int key = tile.first_key + warp_key + j * kSide + column;
      for (int part = 0; part < 8 && token < c.tokens; part += 4) {
        if (key + part >= tile.n) continue;  // up to three keys of padding go with the last
        *reinterpret_cast<float4*>(tile.scores(c, token) + key + part) =
            *reinterpret_cast<const float4*>(&sums[warp][row][column + part]);
      }
      __syncwarp();
    }
  }
}

}  // namespace tensor

}  // namespace perennial::kernels::cuda
