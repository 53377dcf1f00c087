// SPDX-License-Identifier: Apache-2.0
// Shuffled orders, and the last few of them kept.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <vector>

#include "perennial/continual/stream.h"
#include "perennial/kernels/philox.h"

namespace perennial::continual {

inline std::vector<std::uint32_t> shuffled(std::int64_t seed, std::uint64_t lane,
                                           std::int64_t count) {
  std::vector<std::uint32_t> order(static_cast<std::size_t>(count));
  kernels::shuffled_indices(static_cast<std::uint64_t>(seed), lane, order);
  return order;
}

// The orders of the last epochs asked for: an experience's, and its neighbours' where they mix.
struct Stream::OrderCache {
  struct Entry {
    std::int64_t seed = 0, experience = -1, epoch = 0;
    Indices order;
  };
  std::mutex mutex;
  std::array<Entry, 3> entries;
  std::size_t oldest = 0;
};

}  // namespace perennial::continual
