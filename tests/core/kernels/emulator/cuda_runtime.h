// SPDX-License-Identifier: Apache-2.0
// What nvcc gives a .cu file, for a C++ compiler: see emulator.h.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "cuda_runtime_api.h"
#include "emulator.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// Blocks run one after the other, so one copy is enough.
#define __shared__ static

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }

inline emulator::Dim3 &threadIdx = emulator::thread_index, &blockIdx = emulator::block_index,
                      &blockDim = emulator::block_size, &gridDim = emulator::grid_size;
using dim3 = emulator::Dim3;

inline void __syncthreads() { emulator::wait_for_block(); }
inline void __syncwarp() { emulator::wait_for_warp(); }
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance) {
  return emulator::shuffle_xor(mask, value, distance);
}
template <class T>
T atomicAdd(T* address, T value) {
  const T before = *address;
  *address = before + value;
  return before;
}
template <class T>
T atomicOr(T* address, T value) {
  const T before = *address;
  *address = before | value;
  return before;
}
