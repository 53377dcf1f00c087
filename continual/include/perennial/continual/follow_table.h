// SPDX-License-Identifier: Apache-2.0
// Learning from a table that keeps growing.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "perennial/continual/run_config.h"
#include "perennial/continual/trainer.h"

namespace perennial::continual {

struct FollowOptions {
  std::int64_t follow_rows = 0;
  double follow_idle = 0;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("follow_rows", self.follow_rows,
            "rows that make an experience, test_share of them kept for testing; 0 = as the store's "
            "run has it, or 1000",
            Range{0, 1e7});
    visitor("follow_idle", self.follow_idle,
            "seconds without an experience's rows after which following ends; 0 = it waits on",
            Range{0, 1e9});
  }
};

struct FollowSettings {
  RunSettings run;  // its stop_requested ends following, also while it waits
  // The store, asked for before the first commit: what is wrong with the first rows is found
  // before one is made. Null until then if it is not there yet.
  storage::PageStore* store = nullptr;
  std::function<storage::PageStore*()> make_store = {};
  // After each experience, with the run's result so far and what was skipped of its rows, if any.
  std::function<void(const RunResult&, const std::string& bad_rows)> on_experience = {};
};

// Learns config.stream.dataset, a CSV or JSONL file that is appended to or a pipe, as it grows:
// each follow_rows good rows are an experience of the run in the store (further_data.h), which ends
// with a commit that holds the position in the table. Started again it goes on there; what was
// taken for an experience that had not ended is in the store, so a kill and a restart end in the
// state of an undisturbed run. Rows beyond the last whole experience are not learnt, and taken
// again the next time, unless a pipe has ended: then what is left is the last experience, if a
// class has two examples of it. What was read of a pipe and not yet committed is lost with the
// process: at most an experience's rows and 64 KiB.
// A pipe of the same name that is followed again goes on where the last one ended: it has no header
// of its own.
//
// Ends when stop_requested, after follow_idle, or at the end of a pipe. Returns the run's result;
// empty when there never was an experience. Throws InvalidOptions for what cannot work (a stream
// that is not single, a store that learnt this file as a whole, batch norm, whose batches of one
// nobody can foresee), DataError as RowFollower does; what was learnt before stays.
std::optional<RunResult> follow_table(const RunConfig& config, const FollowOptions& options,
                                      const FollowSettings& settings);

}  // namespace perennial::continual
