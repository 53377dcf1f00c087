// SPDX-License-Identifier: Apache-2.0
// CUB's scan on the host, with its two calls: without memory it tells how much it needs.
#pragma once

#include <cstring>
#include <numeric>

#include "cuda_runtime.h"

namespace cub {

struct DeviceScan {
  template <class T>
  static cudaError_t InclusiveSum(void* memory, std::size_t& bytes, const T* values, T* sums, int n,
                                  cudaStream_t /*stream*/) {
    constexpr std::size_t kNeeded = 512;
    if (memory == nullptr) {
      bytes = kNeeded;
      return cudaSuccess;
    }
    if (bytes < kNeeded) return cudaErrorInvalidValue;
    const emulator::Reaching reaching;
    std::memset(memory, 0xA5, bytes);
    std::partial_sum(values, values + n, sums);
    return cudaSuccess;
  }
};

}  // namespace cub
