// SPDX-License-Identifier: Apache-2.0
// Random choices of the torture harness: the same on every machine for the same seed.
#pragma once

#include <cstdint>
#include <random>

namespace perennial::storage::testing {

using Random = std::mt19937_64;

// A number in [0, bound); bound is small, so the bias does not matter.
inline std::uint64_t below(Random& random, std::uint64_t bound) { return random() % bound; }
inline bool one_in(Random& random, std::uint64_t bound) { return below(random, bound) == 0; }

// The seed of part `index` of what `seed` drives.
inline std::uint64_t derive(std::uint64_t seed, std::uint64_t index) {
  std::uint64_t x = seed + 0x9E3779B97F4A7C15ull * (index + 1);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace perennial::storage::testing
