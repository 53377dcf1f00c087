// SPDX-License-Identifier: Apache-2.0
// CUB's radix sort on the host, with its two calls: without memory it tells how much it needs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "cuda_runtime.h"

namespace cub {

struct DeviceRadixSort {
  // Stable, by bits [begin_bit, end_bit) of the keys.
  template <class Key, class Value>
  static cudaError_t SortPairs(void* memory, std::size_t& bytes, const Key* keys, Key* sorted_keys,
                               const Value* values, Value* sorted_values, int n, int begin_bit,
                               int end_bit, cudaStream_t /*stream*/) {
    const auto count = static_cast<std::size_t>(n);
    if (memory == nullptr) {
      bytes = 256 + count * sizeof(Key);
      return cudaSuccess;
    }
    if (bytes < 256 + count * sizeof(Key)) return cudaErrorInvalidValue;
    const emulator::Reaching reaching;
    const auto part = [&](std::size_t i) {
      const Key low = keys[i] >> begin_bit;
      const int width = end_bit - begin_bit;
      return width >= static_cast<int>(8 * sizeof(Key)) ? low : low & ((Key{1} << width) - 1);
    };
    std::vector<std::size_t> order(count);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return part(a) < part(b); });
    std::memset(memory, 0xA5, bytes);  // whoever keeps anything there will notice
    for (std::size_t i = 0; i < count; ++i) {
      sorted_keys[i] = keys[order[i]];
      sorted_values[i] = values[order[i]];
    }
    return cudaSuccess;
  }
};

}  // namespace cub
