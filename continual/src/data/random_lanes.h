// SPDX-License-Identifier: Apache-2.0
// The lanes of kernels::RandomStream that continual draws from: each use has its own, so that no
// two uses of one seed read the same numbers. This file is the one place where they are given out.
//
//   bits 63..56  use (below)
//   bits 55..32  experience
//   bits 31..0   epoch, where the use has one
//
// The numbers decide what a seed means, so a use keeps its number for ever; new uses take new ones.
#pragma once

#include <cstdint>

namespace perennial::continual {

enum class LaneUse : std::uint64_t {
  permutation = 1,   // stream_seed: pixel permutation of an experience
  train_subset = 2,  // stream_seed: training examples of an experience when limited
  test_subset = 3,   // stream_seed: test examples of an experience when limited
  epoch_order = 4,   // seed of the run: order of the training examples in an epoch
  test_split = 5,    // stream_seed: a class's examples for the test part ("experience": the class)
  blur = 6,          // stream_seed: who changes places at the boundary after an experience
  joint_angle = 7,   // stream_seed: angles of a gradual rotation in a joint pass
  class_order = 8,   // stream_seed: order of the classes of a split stream
  validation_split = 9,  // stream_seed: as test_split, for the validation part
  replay_place = 32,     // strategy_seed: which examples a memory keeps
  replay_draw = 33,      // strategy_seed: which of them are replayed
  fisher_sample = 34,    // strategy_seed: labels drawn for the Fisher information
  memory_order = 35,     // strategy_seed: order of a memory's examples in training on it alone
  // A seed of its own: the test examples that a run evaluates while it learns.
  anytime_subset = 64,
};

constexpr std::uint64_t random_lane(LaneUse use, std::int64_t experience, std::int64_t epoch = 0) {
  return static_cast<std::uint64_t>(use) << 56 |
         (static_cast<std::uint64_t>(experience) & 0xFFFFFF) << 32 |
         (static_cast<std::uint64_t>(epoch) & 0xFFFFFFFF);
}

}  // namespace perennial::continual
