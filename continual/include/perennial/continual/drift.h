// SPDX-License-Identifier: Apache-2.0
// Noticing from the losses alone that a stream's distribution has changed.
#pragma once

#include <cstdint>

namespace perennial::continual {

struct DriftOptions {
  double threshold = 3;      // deviations above the mean
  std::int64_t steps = 3;    // in a row
  std::int64_t window = 50;  // over how many losses mean and deviation are taken
};

// A one-sided control chart of the losses of batches, each taken before a model learns from the
// batch. Mean and variance are exponentially weighted with weight 1 / window (plain means until
// there were as many). A loss above mean + threshold deviations is suspicious and does not count
// into them; `steps` suspicious ones in a row are a drift. The deviation is taken as at least 5% of
// the mean, so that a model that is nearly perfect does not suspect every batch. No drift is seen
// within the first `window` losses, and none that is slower than the window: there the mean
// follows. A loss that is not finite is usual and does not count. O(1).
class DriftDetector {
 public:
  // usual: like the losses before; suspicious: perhaps of another distribution; drift: it is.
  enum class Verdict : std::uint8_t { usual, suspicious, drift };

  struct State {
    std::int64_t observed = 0;    // losses in the mean
    std::int64_t suspicious = 0;  // in a row, just now
    double mean = 0, variance = 0;
  };

  explicit DriftDetector(const DriftOptions& options) : options_(options) {}

  // After a drift it begins anew.
  Verdict observe(double loss);
  void restart() { state_ = {}; }

  // All that it knows; setting it goes on exactly from there.
  const State& state() const { return state_; }
  void set_state(const State& state) { state_ = state; }

 private:
  DriftOptions options_;
  State state_;
};

}  // namespace perennial::continual
