// SPDX-License-Identifier: Apache-2.0
// Copies of records from frames to rows, and the bits of what was updated.
#include "launch.h"
#include "perennial/kernels/cuda/records.h"

namespace perennial::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr std::int64_t kMostGrid = 1 << 14;

unsigned grid_of(std::int64_t blocks) {
  return static_cast<unsigned>(blocks < kMostGrid ? blocks : kMostGrid);
}

// A block a record.
__global__ void __launch_bounds__(kThreads)
    gather_kernel(Frames frames, const std::int64_t* ids, std::int64_t n, float4* rows) {
  const std::int64_t vectors = frames.record_floats / 4;
  for (std::int64_t i = blockIdx.x; i < n; i += gridDim.x) {
    const auto* const record = reinterpret_cast<const float4*>(frames.record(ids[i]));
    for (std::int64_t at = threadIdx.x; at < vectors; at += kThreads) {
      rows[i * vectors + at] = record[at];
    }
  }
}

// A thread an expert.
__global__ void __launch_bounds__(kThreads)
    mark_kernel(const std::int64_t* ids, const std::uint32_t* experts, OpenGeneration generation,
                std::uint32_t* bits) {
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < *experts;
       i += step) {
    const std::uint64_t bit =
        std::uint64_t{row_of(ids[i]) - generation.first_row} * generation.cols + col_of(ids[i]);
    atomicOr(bits + bit / 32, 1u << bit % 32);
  }
}

}  // namespace

Error gather_records(const Frames& frames, const std::int64_t* ids, std::int64_t n, float* rows,
                     Stream stream) {
  if (n < 0 || frames.record_floats % 4 != 0 || !aligned16(rows)) return kInvalidValue;
  if (n == 0 || frames.record_floats == 0) return 0;
  gather_kernel<<<grid_of(n), kThreads, 0, stream>>>(frames, ids, n,
                                                     reinterpret_cast<float4*>(rows));
  return last_error();
}

Error mark_experts(const std::int64_t* ids, const std::uint32_t* experts, std::int64_t most_experts,
                   const OpenGeneration& generation, std::uint32_t* bits, Stream stream) {
  if (most_experts < 0) return kInvalidValue;
  if (most_experts == 0) return 0;
  mark_kernel<<<grid_of(blocks_for(most_experts, kThreads)), kThreads, 0, stream>>>(
      ids, experts, generation, bits);
  return last_error();
}

}  // namespace perennial::kernels::cuda
