// SPDX-License-Identifier: Apache-2.0
// What an algorithm of one thread block is written against: phases of independent work with a
// barrier after each. On the device the threads share a phase out; on the host (tests) a loop runs
// it, so that the very same source is checked without a device. Nothing may depend on the order
// within a phase.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define PERENNIAL_BLOCK_FUNCTION __device__ inline
#else
#define PERENNIAL_BLOCK_FUNCTION inline
#endif

namespace perennial::kernels::cuda {

#ifdef __CUDACC__
struct DeviceBlock {
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
#endif

// Orders of a phase on the host.
class HostBlock {
 public:
  enum class Order { ascending, descending, interleaved };
  explicit HostBlock(Order order) : order_(order) {}

  template <class F>
  void each(std::int64_t n, F f) const {
    constexpr std::int64_t kStride = 7;
    if (order_ == Order::interleaved) {
      for (std::int64_t first = kStride; first-- > 0;) {
        for (std::int64_t i = first; i < n; i += kStride) f(i);
      }
      return;
    }
    for (std::int64_t i = 0; i < n; ++i) f(order_ == Order::ascending ? i : n - 1 - i);
  }
  template <class F>
  void once(F f) const {
    f();
  }
  std::uint32_t reserve(std::uint32_t* counter, std::uint32_t count) const {
    const std::uint32_t before = *counter;
    *counter += count;
    return before;
  }
  template <class T>
  T read(const T* shared) const {
    return *shared;
  }

 private:
  Order order_;
};

}  // namespace perennial::kernels::cuda
