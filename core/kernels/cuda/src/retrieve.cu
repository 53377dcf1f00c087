// SPDX-License-Identifier: Apache-2.0
// Product-key retrieval, chunk by chunk of tokens: a kernel for the scores of both sides, and one
// block a token and head that selects and merges.
#include <cmath>

#include "launch.h"
#include "merge_block.h"
#include "perennial/kernels/cuda/retrieve.h"
#include "score_chunk.h"
#include "tensor_scores.h"

namespace perennial::kernels::cuda {
namespace {

// The score kernel's tile: keys, and terms of the sum a step. A block of 16 x 16 threads has 16
// kRows tokens; each thread kRows of them by 8 keys.
constexpr int kTileKeys = 128;
constexpr int kStepTerms = 16;
constexpr int kScoreThreads = 256;
constexpr int kManyTokens = 64;  // from here on the tile is 128 tokens high, not 16

constexpr int kMergeThreads = 128;

constexpr std::size_t kChunkBytes = std::size_t{32} << 20;
constexpr std::int64_t kMostChunkTokens = std::int64_t{1} << 19;  // keeps every grid in its limits

std::int64_t padded(std::int64_t n) { return (n + 3) / 4 * 4; }

Chunk chunk_of(const RetrieveArgs& args) {
  Chunk c;
  c.heads = args.heads;
  c.dim = args.sub_dim;
  for (std::int64_t s = 0; s < args.segment_count; ++s) {
    const KeySegment& segment = args.segments[s];
    const std::int64_t end = segment.key_begin + segment.rows;
    if (segment.rows > 0 && end > c.rows) c.rows = end;
    if (segment.cols > c.cols) c.cols = segment.cols;
  }
  c.row_floats = padded(c.rows);
  c.floats = c.row_floats + padded(c.cols);
  c.query = args.query;
  c.rounded_query = args.rounded_query;
  c.row_keys = args.rows;
  c.col_keys = args.cols;
  return c;
}

std::size_t token_bytes(const Chunk& c) {
  return static_cast<std::size_t>(c.heads * c.floats) * sizeof(float);
}

// One step of the tile's sums: `terms` more of each, ascending.
template <int kRows, int kTokens>
__device__ __forceinline__ void add_terms(int terms, int tx, int ty, const float (*q)[kTokens + 4],
                                          const float (*k)[kTileKeys + 4], float (&sum)[kRows][8]) {
#pragma unroll
  for (int i = 0; i < kStepTerms; ++i) {
    if (i >= terms) return;
    float a[kRows], b[8];
    if constexpr (kRows == 8) {
      *reinterpret_cast<float4*>(a) = *reinterpret_cast<const float4*>(&q[i][ty * 4]);
      *reinterpret_cast<float4*>(a + 4) = *reinterpret_cast<const float4*>(&q[i][64 + ty * 4]);
    } else {
      a[0] = q[i][ty];
    }
    *reinterpret_cast<float4*>(b) = *reinterpret_cast<const float4*>(&k[i][tx * 4]);
    *reinterpret_cast<float4*>(b + 4) = *reinterpret_cast<const float4*>(&k[i][64 + tx * 4]);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < 8; ++c) sum[r][c] = fmaf(a[r], b[c], sum[r][c]);
    }
  }
}

// See ScoreTile for the grid.
template <int kRows>
__global__ void __launch_bounds__(kScoreThreads) scores_kernel(Chunk c) {
  constexpr int kTokens = 16 * kRows;
  __shared__ __align__(16) float q[kStepTerms][kTokens + 4];
  __shared__ __align__(16) float k[kStepTerms][kTileKeys + 4];
  const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
  const ScoreTile tile(c, kTileKeys, kTokens);
  const float* keys = tile.keys(c, c.row_keys.keys, c.col_keys.keys);
  const float* query = tile.query(c, c.query);
  const std::int64_t query_stride = c.heads * 2 * c.dim;

  float sum[kRows][8] = {};
  for (std::int64_t base = 0; base < c.dim; base += kStepTerms) {
    for (int at = threadIdx.x; at < kTokens * kStepTerms; at += kScoreThreads) {
      const int token = tile.first_token + at / kStepTerms;
      const std::int64_t i = base + at % kStepTerms;
      const bool there = token < c.tokens && i < c.dim;
      q[at % kStepTerms][at / kStepTerms] = there ? query[token * query_stride + i] : 0.0f;
    }
    for (int at = threadIdx.x; at < kTileKeys * kStepTerms; at += kScoreThreads) {
      const int key = tile.first_key + at / kStepTerms;
      const std::int64_t i = base + at % kStepTerms;
      const bool there = key < tile.n && i < c.dim;
      k[at % kStepTerms][at / kStepTerms] = there ? keys[key * c.dim + i] : 0.0f;
    }
    __syncthreads();
    if (c.dim - base >= kStepTerms) {
      add_terms<kRows, kTokens>(kStepTerms, tx, ty, q, k, sum);
    } else {
      add_terms<kRows, kTokens>(static_cast<int>(c.dim - base), tx, ty, q, k, sum);
    }
    __syncthreads();
  }

#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int place = kRows == 8 ? (r / 4) * 64 + ty * 4 + r % 4 : ty;
    const int token = tile.first_token + place;
    if (token >= c.tokens) continue;
    float* out = tile.scores(c, token);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = tile.first_key + half * 64 + tx * 4;
      if (key >= tile.n) continue;  // up to three keys of padding are written with the last
      *reinterpret_cast<float4*>(out + key) = make_float4(
          sum[r][half * 4], sum[r][half * 4 + 1], sum[r][half * 4 + 2], sum[r][half * 4 + 3]);
    }
  }
}

// A block a (token, head).
__global__ void __launch_bounds__(kMergeThreads)
    merge_kernel(Chunk c, const KeySegment* segments, std::int64_t segment_count, std::int64_t k,
                 std::int64_t* ids, float* scores, std::int32_t* row_index) {
  extern __shared__ __align__(16) unsigned char shared[];
  const std::int64_t index = blockIdx.x;
  const float* mine = c.scores + index * c.floats;
  const TokenHead token{mine, mine + c.row_floats, ids + index * k, scores + index * k,
                        row_index + index * k};
  retrieve_token(Block(), token, segments, segment_count, k, MergeScratch::at(shared, k, nullptr));
}

dim3 score_grid(const Chunk& c, int tile_tokens) {
  static_assert(tensor::kKeys == kTileKeys);
  return {static_cast<unsigned>(blocks_for(c.rows, kTileKeys) + blocks_for(c.cols, kTileKeys)),
          static_cast<unsigned>(blocks_for(c.tokens, tile_tokens)), static_cast<unsigned>(c.heads)};
}

template <bool kWide>
void launch_tensor_scores(const Chunk& c, Stream stream) {
  using tensor::kThreads, tensor::tensor_scores_kernel;
  if (c.tokens > 16) {
    tensor_scores_kernel<64, kWide><<<score_grid(c, 64), kThreads, 0, stream>>>(c);
  } else {
    tensor_scores_kernel<16, kWide><<<score_grid(c, 16), kThreads, 0, stream>>>(c);
  }
}

void launch_scores(const Chunk& c, Stream stream) {
  if (c.rounded_query != nullptr) {
    const bool wide = c.dim % tensor::kGroup == 0 && aligned16(c.rounded_query) &&
                      aligned16(c.row_keys.rounded) && aligned16(c.col_keys.rounded);
    if (wide) return launch_tensor_scores<true>(c, stream);
    return launch_tensor_scores<false>(c, stream);
  }
  if (c.tokens >= kManyTokens) {
    scores_kernel<8><<<score_grid(c, 128), kScoreThreads, 0, stream>>>(c);
  } else {
    scores_kernel<1><<<score_grid(c, 16), kScoreThreads, 0, stream>>>(c);
  }
}

bool servable(const RetrieveArgs& args) {
  return args.k >= 1 && args.k <= kMaxTopK && args.heads >= 1 && args.heads <= 0xFFFF &&
         args.sub_dim >= 1 && (args.rounded_query != nullptr) == (args.rows.rounded != nullptr) &&
         (args.rounded_query != nullptr) == (args.cols.rounded != nullptr);
}

}  // namespace

std::size_t retrieve_workspace(const RetrieveArgs& args, std::int64_t tokens) {
  const std::size_t each = token_bytes(chunk_of(args));
  if (each == 0 || tokens <= 0) return 0;
  const std::size_t fitting = kChunkBytes / each > 0 ? kChunkBytes / each : 1;
  const auto wanted = static_cast<std::size_t>(tokens);
  return (fitting < wanted ? fitting : wanted) * each;
}

Error retrieve(const RetrieveArgs& args, std::int64_t tokens, void* workspace,
               std::size_t workspace_bytes, Stream stream) {
  if (!servable(args)) return kInvalidValue;
  Chunk c = chunk_of(args);
  if (tokens <= 0) return 0;
  if (c.rows == 0 || c.cols == 0) return kInvalidValue;
  std::int64_t fitting = static_cast<std::int64_t>(workspace_bytes / token_bytes(c));
  if (fitting > kMostChunkTokens) fitting = kMostChunkTokens;
  while (fitting * args.heads > kMostBlocks) fitting /= 2;
  if (fitting < 1 || !aligned16(workspace)) return kInvalidValue;
  c.scores = static_cast<float*>(workspace);
  std::size_t shared = 0;
  MergeScratch::at(nullptr, args.k, &shared);
  const std::int64_t query_stride = args.heads * 2 * args.sub_dim;
  for (std::int64_t first = 0; first < tokens; first += fitting) {
    c.tokens = tokens - first < fitting ? tokens - first : fitting;
    if (c.rounded_query == nullptr) {
      c.query = args.query + first * query_stride;
    } else {
      c.rounded_query = args.rounded_query + first * query_stride;
    }
    launch_scores(c, stream);
    const std::int64_t out = first * args.heads * args.k;
    merge_kernel<<<static_cast<unsigned>(c.tokens * args.heads), kMergeThreads, shared, stream>>>(
        c, args.device_segments, args.segment_count, args.k, args.ids + out, args.scores + out,
        args.row_index + out);
    if (const Error error = last_error(); error != 0) return error;
  }
  return 0;
}

}  // namespace perennial::kernels::cuda
