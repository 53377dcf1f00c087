// SPDX-License-Identifier: Apache-2.0
// Evaluates a model on the fixed part of the test sets that a run's anytime metrics use.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "perennial/continual/anytime.h"
#include "perennial/continual/model.h"
#include "perennial/continual/stream.h"

namespace perennial::continual {

// Which test examples are taken follows from the test set's number and size alone: every run over a
// stream has the same ones. They are gathered at their first use and kept (4 D bytes each).
// Single-threaded.
class AnytimeProbe {
 public:
  AnytimeProbe(const Stream& stream, const AnytimeOptions& options);

  AnytimeCurve empty_curve(const Stream& training) const;
  // True if `point` (without accuracies) is one that the options ask for.
  bool wanted(const AnytimePoint& point) const;
  // Accuracies on test sets 0 .. seen-1; `oracle` as in evaluate().
  std::vector<double> measure(Model& model, bool oracle, std::int64_t seen);
  // What the last measure() took, for clocks that count training alone.
  double last_seconds() const { return last_seconds_; }

 private:
  const Batch& examples(std::int64_t test_set);

  Stream stream_;
  AnytimeOptions options_;
  std::vector<Batch> examples_;
  double last_seconds_ = 0;
};

}  // namespace perennial::continual
