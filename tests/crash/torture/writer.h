// SPDX-License-Identifier: Apache-2.0
// The second process of the torture harness: makes steps until it is killed, and reports each one.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <vector>

namespace perennial::storage::testing {

inline constexpr int kPhases = 7;  // storage::Phase
inline constexpr int kWriterFoundBusy = 10;

// Shared by both processes; survives the writer's death.
struct WriterState {
  std::atomic<int> phase{0};
  std::array<std::atomic<std::uint64_t>, kPhases> entered{};  // how often each phase was entered
  std::atomic<std::uint64_t> acknowledged{0};                 // steps
};

// One writer process. Step i (from 1) is draw_step(derive(seed, i), ...), on the state after the
// steps whose seeds are in `past`.
class Writer {
 public:
  Writer(const std::filesystem::path& store, const std::filesystem::path& past, std::uint64_t seed,
         bool acknowledge_early);
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Waits until `phase` was entered `times` times or the process ended; false after 20 s.
  bool wait_for(int phase, std::uint64_t times);
  bool wait_for_steps(std::uint64_t steps);
  bool running();
  // The exit code of a process that ended by itself; waits for it at most 20 s. -1: a signal.
  int exit_code();
  // The phase in which it died; -1 if it had ended by itself.
  int kill();
  std::uint64_t acknowledged() const { return state_->acknowledged; }

 private:
  template <class Done>
  bool wait_until(Done done);

  int shared_ = -1;
  pid_t pid_ = -1;
  bool ended_ = false;
  int status_ = 0;
  WriterState* state_ = nullptr;
};

void write_seeds(const std::filesystem::path& path, const std::vector<std::uint64_t>& seeds);

}  // namespace perennial::storage::testing
