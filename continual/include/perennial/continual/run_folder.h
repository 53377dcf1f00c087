// SPDX-License-Identifier: Apache-2.0
// What a run folder tells of its run, read back from its files.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "perennial/continual/anytime.h"
#include "perennial/continual/metrics.h"

namespace perennial::continual {

// An "experience" event. What a run did not record is empty.
struct ExperienceFigures {
  std::int64_t experience = 0;  // from 1
  std::optional<double> seconds = {}, examples_per_second = {}, parameters = {}, experts = {};
  std::optional<double> parameters_added = {};
  // Of the generation that learnt it, on its own inputs: share of experts and rows.
  std::optional<double> usage = {}, unevenness = {}, dead_rows = {};
  std::optional<double> hit_rate = {};      // of the pages used since the one before
  std::optional<double> replay_bytes = {};  // what the strategy keeps beside the model
  std::optional<double> store_bytes = {};   // of the whole store, after the experience's commit
};

// A "routing" event: after learning `row` experiences, per experience learnt before; NaN for one
// that could not be compared.
struct RoutingRow {
  std::int64_t row = 0;
  std::vector<double> drift;              // share of inputs whose experts changed
  std::vector<double> leak;               // share of slots in newer generations; may be empty
  std::vector<double> weight_forgetting;  // may be empty
};

// The root mean squared errors of a regression's target, in the units of the data.
struct TargetErrors {
  std::string target;
  // After learning so many experiences: of each test set, infinite where answers were no numbers.
  std::map<std::int64_t, std::vector<double>> rows = {};
};

// Thread-compatible value.
struct RunFolder {
  std::filesystem::path folder;
  boost::json::object config;  // {"stream", "model", "train"}; empty when not recorded
  // What it learnt from, in turn; one, or of a run that went on with further data several.
  std::vector<std::string> datasets;
  boost::json::object machine;  // {"threads", "cpu"}
  TaskKind task = TaskKind::classification;
  ScoreMatrix matrix{1};
  std::vector<TargetErrors> errors;  // of a regression, one a target
  AnytimeCurve anytime;
  std::vector<ExperienceFigures> experiences;  // ascending
  std::vector<RoutingRow> routing;
  std::optional<double> gate_accuracy;
  bool finished = false;
  std::int64_t steps = 0;
  double seconds = 0;  // of the process that ended it
  std::string state_digest;

  // The number or text of a configuration field, "" when it has none.
  std::string setting(std::string_view section, std::string_view field) const;
  std::string strategy() const { return setting("train", "strategy"); }
  // all_metrics of matrix and curve, and "gate_accuracy".
  boost::json::object metrics() const;
};

// Reads events.jsonl and, where it is, summary.json. A run that still goes on has what it recorded
// so far. Throws DataError naming file and line: no such files, lines that are no JSON objects (the
// last one may be cut short), no row of the matrix.
RunFolder read_run_folder(const std::filesystem::path& folder);

// A command line that learns the same again: "perennial train --store DIR --threads 2 --strategy
// naive ...", with every setting that is not at its default, quoted for a POSIX shell.
std::string reproducing_command(const RunFolder& run);

}  // namespace perennial::continual
