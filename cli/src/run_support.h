// SPDX-License-Identifier: Apache-2.0
// What the commands that learn share: their flags, running with progress, and printing results.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "flags.h"
#include "output.h"
#include "perennial/continual/follow_table.h"
#include "perennial/continual/trainer.h"

namespace perennial::cli {

// How a command runs, none of which decides a number.
struct RunFlags {
  std::int64_t budget_bytes = 0;
  std::int64_t threads = 0;
  bool exact = false;
  std::string device = "cpu";
  double commit_seconds = 0;
  std::int64_t commit_dirty_bytes = 0;
  std::int64_t routing_inputs = continual::RunSettings{}.routing_inputs;
  std::optional<storage::Retention> retention;  // of a command that lets it be chosen
  continual::Placement placement;               // what --device says, once applied

  void add_to(Flags& flags);
  // Those of commands that train.
  void add_training_to(Flags& flags);
  // Sets the thread count of this process and finds the device, telling on standard error what
  // --device auto is. Throws InvalidOptions for a device that cannot be used.
  void apply(const CommonOptions& common);
};

// Runs `config` on the store (null: keep nothing), with a progress line named `label` on standard
// error. The first Ctrl-C commits and stops. What cannot be done is refused before `on_accepted` is
// called, and that before any work.
continual::RunResult run_with_progress(const continual::RunConfig& config,
                                       const continual::Stream& stream, storage::PageStore* store,
                                       const std::string& run_folder, const RunFlags& flags,
                                       const std::string& label, bool quiet,
                                       const std::function<void()>& on_accepted = {});

// Follows config.stream.dataset in the same way, into `store` or what `make_store` makes before the
// first commit. Each experience is told on standard error. Empty when there was none.
std::optional<continual::RunResult> follow_with_progress(
    const continual::RunConfig& config, const continual::FollowOptions& follow,
    storage::PageStore* store, const std::function<storage::PageStore*()>& make_store,
    const std::string& run_folder, const RunFlags& flags, const std::string& label, bool quiet);

// Refuses, as a run on a new store would, what cannot be done; touches no store.
void check_run(const continual::RunConfig& config, const continual::Stream& stream,
               const RunFlags& flags);

// A learnt model on the command's device, to be used without its stream.
continual::LearntModel load_learnt(const storage::PageReader& store, const RunFlags& flags,
                                   const CommonOptions& common);

// The content of a file. Throws DataError when it cannot be read.
std::string read_text(const std::filesystem::path& file);
// A run's settings, as config.json of a benchmark's run. Throws DataError, InvalidOptions.
continual::RunConfig read_config(const std::filesystem::path& file);

// The accuracy matrix as a table in percent, and the metrics below it.
void print_result(std::ostream& out, const continual::RunResult& result);

// A line for each target of a regression: its error on each test set.
void print_errors(std::ostream& out, const std::vector<std::string>& targets,
                  const std::vector<std::vector<double>>& errors);

// True if the model's generations are answers of their own, which a caller can choose between.
bool routes_alone(const continual::ModelOptions& model);

// "0.8530", or "-" for a metric that does not exist.
std::string format_metric(const std::optional<double>& value);

}  // namespace perennial::cli
