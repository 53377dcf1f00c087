// SPDX-License-Identifier: Apache-2.0
// What the launchers share. For .cu files only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "perennial/kernels/cuda/device.h"

namespace perennial::kernels::cuda {

constexpr int kWarp = 32;

// Blocks of a flat grid: CUDA's first dimension takes 2^31 - 1.
constexpr std::int64_t kMostBlocks = 0x7FFFFFFF;

inline std::int64_t blocks_for(std::int64_t n, std::int64_t each) { return (n + each - 1) / each; }

inline Error last_error() { return static_cast<Error>(cudaGetLastError()); }

inline bool aligned16(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

}  // namespace perennial::kernels::cuda
