// SPDX-License-Identifier: Apache-2.0
// Copies of records between frames and rows, and the bits of what was updated.
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
template <bool kGather>
__global__ void __launch_bounds__(kThreads)
    records_kernel(Frames frames, const std::int64_t* ids, std::int64_t n, float4* rows) {
  const std::int64_t vectors = frames.record_floats / 4;
  for (std::int64_t i = blockIdx.x; i < n; i += gridDim.x) {
    auto* const record = reinterpret_cast<float4*>(frames.record(ids[i]));
    float4* const row = rows + i * vectors;
    for (std::int64_t at = threadIdx.x; at < vectors; at += kThreads) {
      if constexpr (kGather) {
        row[at] = record[at];
      } else {
        record[at] = row[at];
      }
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

template <bool kGather>
Error copy_records(const Frames& frames, const std::int64_t* ids, std::int64_t n, float* rows,
                   Stream stream) {
  if (n < 0 || frames.record_floats % 4 != 0 || !aligned16(rows)) return kInvalidValue;
  if (n == 0 || frames.record_floats == 0) return 0;
  records_kernel<kGather>
      <<<grid_of(n), kThreads, 0, stream>>>(frames, ids, n, reinterpret_cast<float4*>(rows));
  return last_error();
}

}  // namespace

Error gather_records(const Frames& frames, const std::int64_t* ids, std::int64_t n, float* rows,
                     Stream stream) {
  return copy_records<true>(frames, ids, n, rows, stream);
}

Error scatter_records(const Frames& frames, const std::int64_t* ids, std::int64_t n,
                      const float* rows, Stream stream) {
  return copy_records<false>(frames, ids, n, const_cast<float*>(rows), stream);
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
