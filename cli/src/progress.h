// SPDX-License-Identifier: Apache-2.0
// How far long work is, on standard error.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <optional>
#include <string>

namespace perennial::cli {

// A line with a bar, the rate and the time left; a narrow terminal keeps the time left and drops
// the rest. On a terminal it is redrawn in place, at most ten times a second; elsewhere a plain
// line appears every few seconds; with quiet nothing. Cheap enough to call after every step.
// Single-threaded.
class ProgressDisplay {
 public:
  using Clock = std::chrono::steady_clock;
  struct Settings {
    std::ostream* out = nullptr;
    bool terminal = false;
    bool quiet = false;
    int columns = 80;
    std::function<Clock::time_point()> now = Clock::now;
  };
  struct State {
    std::string label;       // "training 2 of 5"
    std::int64_t done = 0;   // of the whole work
    std::int64_t total = 0;  // 0: unknown
    std::string unit;        // "examples"
    std::string detail;      // "loss 0.412", or empty
  };

  // On standard error, as what that is.
  explicit ProgressDisplay(bool quiet);
  explicit ProgressDisplay(Settings settings);
  // Ends the line on a terminal.
  ~ProgressDisplay();
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  void update(const State& state);
  // Removes the line from the terminal, so that other text can be printed; the next update draws it
  // again.
  void clear();

 private:
  std::size_t columns() const;  // that a line may have
  std::string line(const State& state, Clock::time_point now) const;

  Settings settings_;
  // Rate counts from the first update on, so that a resumed run does not claim what it found done.
  std::optional<Clock::time_point> start_;
  std::int64_t start_done_ = 0;
  std::optional<Clock::time_point> drawn_;
  bool on_screen_ = false;
};

}  // namespace perennial::cli
