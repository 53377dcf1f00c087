// SPDX-License-Identifier: Apache-2.0
// What an algorithm of one thread block is written against: phases of independent work, which the
// block's threads share out, with a barrier after each.
#pragma once

#include <cstdint>

namespace perennial::kernels::cuda {

struct Block {
  // f(i) for i < n, then a barrier.
  template <class F>
  __device__ void each(std::int64_t n, F f) const {
    for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) f(i);
    __syncthreads();
  }
  template <class F>
  __device__ void once(F f) const {
    if (threadIdx.x == 0) f();
    __syncthreads();
  }
  // Reserves `count` places: atomic within a phase.
  __device__ std::uint32_t reserve(std::uint32_t* counter, std::uint32_t count) const {
    return atomicAdd(counter, count);
  }
  // What a phase before left in shared memory, the same for all threads; later phases may change
  // it.
  template <class T>
  __device__ T read(const T* shared) const {
    const T value = *shared;
    __syncthreads();
    return value;
  }
};

}  // namespace perennial::kernels::cuda
