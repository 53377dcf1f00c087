// SPDX-License-Identifier: Apache-2.0
// Chooses the settings of a protocol's row by their accuracy on held-out training examples.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "perennial/continual/protocol.h"

namespace perennial::continual {

// Trials draw everything from this seed, which the seeds of results (1, 2, ...) never are.
inline constexpr std::int64_t kTuningSeed = 0;
// Of each class's training examples; trials learn from the rest and are judged on these, on so many
// of an experience at most.
inline constexpr double kTuningShare = 0.1;
inline constexpr std::int64_t kTuningExamples = 2000;

// Settings that are tried for a row.
struct Trial {
  // {"train": {"optimizer": "adam", ...}}: what they set; empty: the row as the protocol has it.
  boost::json::object settings;
  RunConfig config;  // the row's with these
  RunConfig run;     // what judges them: with kTuningSeed, on kTuningShare held out

  // "adam 0.001 linear, ridge 10"; "as the protocol has it".
  std::string text() const;
  // The same as a folder's name: "adam-0.001-linear-ridge-10".
  std::string name() const;
};

struct Tried {
  Trial trial;
  double acc = 0;  // on the held-out examples, at the end
};

struct Tuning {
  std::vector<Tried> tried;   // what is known, in the order of trying
  std::vector<Trial> open;    // what must be known before anything else can be; may be empty
  std::optional<Tried> best;  // the choice, once nothing is open
  // Where the choice lies at the edge of what was tried, as "lr 0.01 is the largest that was
  // tried": a better one may lie beyond.
  std::vector<std::string> edges;
};

// How far the choice for a row is, where `accuracy` knows the trials that were run. The same for
// every row, and a function of its arguments:
//  1. Adam at 3e-4, 1e-3, 3e-3 and SGD at 0.03, 0.1, each with a constant rate and a linear decay.
//     While the best has the smallest or largest rate that its optimizer was tried at, the next one
//     beyond (of 1e-4 ... 1e-2 for Adam, 0.003 ... 1 for SGD) is tried with its schedule.
//  2. The row's axes, one after the other, at the best so far.
// A setting that the row's configuration cannot have is left out. A row whose head is solved trains
// nothing: 1 is the row as it is. Of equals the one tried first is the best.
Tuning tune(const ProtocolRow& row,
            const std::function<std::optional<double>(const Trial&)>& accuracy);

}  // namespace perennial::continual
