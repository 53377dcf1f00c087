// SPDX-License-Identifier: Apache-2.0
// Runs that differ in nothing but their seeds, taken together.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "perennial/continual/run_folder.h"
#include "perennial/continual/statistics.h"

namespace perennial::continual::report {

struct Group {
  std::string name;  // the strategy, with what tells it from others; no two are the same
  std::vector<const RunFolder*> runs;

  const RunFolder& first() const { return *runs.front(); }
  std::int64_t experiences() const { return first().matrix.experiences(); }
};

// In the order of their first runs. `repeated` counts folders that repeat another one's
// configuration, seeds and matrix; they are left out.
std::vector<Group> group_runs(const std::vector<RunFolder>& runs, std::size_t& repeated);

// A metric of each run, by its name in RunFolder::metrics() or "intransigence" (needs joint runs of
// the same stream among `groups`); empty when a run lacks it.
std::optional<SeedStatistics> statistic(const Group& group, const std::string& metric,
                                        const std::vector<Group>& groups);

// Means over the runs that have the row; empty cells where none has.
std::vector<std::vector<std::optional<double>>> mean_matrix(const Group& group);

// The same of a target's errors: by experiences learnt. Empty where no run recorded any.
std::map<std::int64_t, std::vector<double>> mean_errors(const Group& group,
                                                        const std::string& target);

// Fields in which configurations differ: ("train.strategy", a value a group). Seeds are left out. A
// data set is given by its file's or folder's name where that tells them apart.
std::vector<std::pair<std::string, std::vector<std::string>>> differing_settings(
    const std::vector<Group>& groups);

// Every data set that a run learnt from, in turn; one that it followed is named once.
std::string datasets_of(const RunFolder& run);

bool is_seed(std::string_view field);

}  // namespace perennial::continual::report
