// SPDX-License-Identifier: Apache-2.0
// What commit number n of the kill test does, known to the writer and to the test that checks it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "storage/store_testing.h"

namespace perennial::storage::testing {

// Shared by the writer and the test; survives the writer's death.
struct WriterState {
  std::atomic<int> phase{0};                // storage::Phase
  std::atomic<std::uint64_t> entered[5]{};  // how often each phase was entered
};

inline constexpr std::uint32_t kRows = 24;

// Every ninth commit goes back to the state five commits before.
inline std::uint64_t restore_source(std::uint64_t commit) {
  return commit % 9 == 0 ? commit - 5 : 0;
}

inline void make_step(std::uint64_t commit, Change& change) {
  const auto n = static_cast<std::uint32_t>(commit);
  for (std::uint32_t i = 0; i < 3 + n % 14; ++i) {
    change.page(weights((n * 5 + i) % kRows, 0), commit * 100 + i, shape_of(16, 128 + n % 3));
  }
  change.page(weights(n % kRows, 1), commit, shape_of(1, 7));
  change.remove(weights((n + kRows / 2) % kRows, 1));
  change.dense("counter", bytes_of(commit, 40));
  if (n % 3 == 0) change.dense("moments", bytes_of(commit, 300'000));
  if (n % 5 == 0) change.remove_dense("replay");
  if (n % 5 == 1) change.dense("replay", bytes_of(commit, 70'000));
  if (n % 4 == 0) change.snapshot(std::string("s").append(std::to_string(n)));
}

}  // namespace perennial::storage::testing
