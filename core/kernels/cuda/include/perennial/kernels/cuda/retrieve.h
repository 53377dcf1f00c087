// SPDX-License-Identifier: Apache-2.0
// Product-key retrieval on the device: perennial/kernels/retrieve.h states what is computed. Ids,
// scores and row indices are the CPU kernel's bit for bit: a score is one sum of fused
// multiply-adds in ascending order, in fp32 (no TF32). Scores of bf16 inputs, if asked for, are
// tensor cores': fp32 sums of exact products, in the hardware's order; the top-k is exact given
// them.
// Symbols: B tokens, H heads, K top-k, D width of a sub-key, R and C row and column keys in use.
#pragma once

#include <cstddef>
#include <cstdint>

#include "perennial/kernels/bfloat16.h"
#include "perennial/kernels/cuda/device.h"
#include "perennial/kernels/key_segment.h"

namespace perennial::kernels::cuda {

inline constexpr std::int64_t kMaxTopK = 128;

// One side's sub-keys.
struct SubKeys {
  std::int64_t count = 0;             // n
  bool per_head = true;               // a set for each head, or one for all
  const float* keys = nullptr;        // (H or 1, n, D)
  const BFloat16* rounded = nullptr;  // with a rounded query: the same in bf16
};

struct RetrieveArgs {
  std::int64_t heads = 1;
  std::int64_t k = 1;  // 1 <= k <= min(kMaxTopK, number of visible experts)
  std::int64_t sub_dim = 1;
  const float* query = nullptr;             // (B, H, 2 D)
  const BFloat16* rounded_query = nullptr;  // or this, which retrieve() reads instead
  SubKeys rows, cols;
  const KeySegment* segments = nullptr;         // host, and
  const KeySegment* device_segments = nullptr;  // the same on the device: rows, cols < 2^31
  std::int64_t segment_count = 0;

  std::int64_t* ids = nullptr;        // (B, H, K), out
  float* scores = nullptr;            // (B, H, K), out
  std::int32_t* row_index = nullptr;  // (B, H, K), out
};

// Bytes of workspace for retrieve() of `tokens`: scores of a chunk of tokens, at most about 32 MB
// unless a single token needs more. 256-byte aligned memory is expected.
std::size_t retrieve_workspace(const RetrieveArgs& args, std::int64_t tokens);

// Tokens [0, tokens), in chunks as the workspace allows, which changes no bit. Cost: two launches a
// chunk; 2 B H (R + C) D FLOPs; scores pass through the workspace, which fits the second-level
// cache of an H100.
Error retrieve(const RetrieveArgs& args, std::int64_t tokens, void* workspace,
               std::size_t workspace_bytes, Stream stream);

// dquery: (B, H, 2 D), overwritten: each slot's dscore times its two keys, slots ascending.
Error retrieve_backward_query(const RetrieveArgs& args, const float* dscores, std::int64_t tokens,
                              float* dquery, Stream stream);

// drow_keys, dcol_keys: shaped as the keys, accumulated into (the caller zeroes): each slot's
// dscore times its half of the query, slots ascending, by a stable sort of the slots by key.
// Fewer than 2^31 slots and keys a set. Bytes of workspace: 0 where it cannot be told.
std::size_t retrieve_backward_keys_workspace(const RetrieveArgs& args, std::int64_t tokens);
Error retrieve_backward_keys(const RetrieveArgs& args, const float* dscores, std::int64_t tokens,
                             void* workspace, std::size_t workspace_bytes, float* drow_keys,
                             float* dcol_keys, Stream stream);

}  // namespace perennial::kernels::cuda
