// SPDX-License-Identifier: Apache-2.0
// What the launchers share. For .cu files only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "perennial/kernels/cuda/device.h"

// Blocks of a multiprocessor that a kernel's registers must allow, for sm_80, or for sm_80 and
// sm_90: without the number ptxas spills a few bytes of some kernels there.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 800
#define PERENNIAL_SM80_BLOCKS(blocks) , blocks
#else
#define PERENNIAL_SM80_BLOCKS(blocks)
#endif
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 1000
#define PERENNIAL_SM80_SM90_BLOCKS(blocks) , blocks
#else
#define PERENNIAL_SM80_SM90_BLOCKS(blocks)
#endif

namespace perennial::kernels::cuda {

constexpr int kWarp = 32;

// Blocks of a flat grid: CUDA's first dimension takes 2^31 - 1.
constexpr std::int64_t kMostBlocks = 0x7FFFFFFF;

inline std::int64_t blocks_for(std::int64_t n, std::int64_t each) { return (n + each - 1) / each; }

inline Error last_error() { return static_cast<Error>(cudaGetLastError()); }

inline bool aligned16(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

}  // namespace perennial::kernels::cuda
