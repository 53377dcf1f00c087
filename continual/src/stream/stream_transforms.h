// SPDX-License-Identifier: Apache-2.0
// What a stream does to an example on its way into a batch: permutations and rotations.
#pragma once

#include <cstdint>
#include <vector>

#include "perennial/continual/stream.h"
#include "stream/rotation.h"

namespace perennial::continual {

// Steps of an experience's angle when it grows gradually.
inline constexpr std::int64_t kAngleLevels = 64;

// Immutable, thread-safe.
class Stream::Transforms {
 public:
  // Draws permutations, makes rotation maps. Throws InvalidOptions for what the data cannot do.
  Transforms(const StreamOptions& options, const Dataset& data, const std::string& name);

  // The pixel permutation of an experience; null = as they are.
  const std::uint32_t* permutation(std::int64_t experience) const {
    return permutations_.empty() ? nullptr
                                 : permutations_[static_cast<std::size_t>(experience)].data();
  }
  bool rotates() const { return !rotations_.empty(); }
  // That of an experience's own angle.
  const RotationMap& rotation(std::int64_t experience) const {
    return rotations_[static_cast<std::size_t>(experience)];
  }
  // Made anew: level 0 .. kAngleLevels - 1 of a gradual rotation around the experience's angle.
  RotationMap rotation_at(std::int64_t experience, std::int64_t level) const;

 private:
  StreamOptions options_;
  std::int64_t rows_, cols_;
  std::vector<std::vector<std::uint32_t>> permutations_;  // (D) each; empty unless permuted
  std::vector<RotationMap> rotations_;                    // empty unless rotated
};

}  // namespace perennial::continual
