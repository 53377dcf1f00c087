// SPDX-License-Identifier: Apache-2.0
// The trainer: feeds a stream to a model under a strategy, evaluates, commits, and resumes exactly.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "perennial/continual/anytime.h"
#include "perennial/continual/follow.h"
#include "perennial/continual/metrics.h"
#include "perennial/continual/model.h"
#include "perennial/continual/run_config.h"
#include "perennial/continual/stream.h"
#include "perennial/storage/page_store.h"

namespace perennial::continual {

// How far a run is, for a progress display.
struct Progress {
  std::string phase;            // "training", "evaluating", "committing"
  std::int64_t experience = 0;  // from 0
  std::int64_t experiences = 0;
  std::int64_t examples_done = 0;  // of the whole run
  std::int64_t examples_total = 0;
  double loss = 0;  // of the last step
};

struct FollowRows {
  FollowPosition position;
  std::int64_t rows = 0;
};

// What decides how a run goes on, but none of its numbers.
struct RunSettings {
  std::filesystem::path run_folder = {};  // events.jsonl, metrics.csv, summary.json; empty = none
  std::int64_t budget_bytes = 0;          // memory for the pool's pages; 0 = no limit
  // Beside RunConfig's commit_every: commit after this many seconds, or once this many bytes of
  // pages have changed (not on a device, whose pages change at a commit); 0 = off. Such commits are
  // written while training goes on.
  double commit_seconds = 0;
  std::int64_t commit_dirty_bytes = 0;
  // A commit that fails for want of space or by an I/O error is tried again; where the run cannot
  // go on without it, for so long.
  double commit_patience_seconds = 60;
  // Inputs of each test set whose routing is recorded after each experience, as far as learnt:
  // usage, drift, leak. Needs a run folder; 0 = off.
  std::int64_t routing_inputs = 200;
  std::optional<storage::Retention> retention = {};  // the store's rule from the next commit on
  // Where a followed table is after the stream's rows, and how many rows make an experience; set by
  // follow_table(). The stream's training rows are then kept in the store until they are learnt.
  std::optional<FollowRows> follow = {};
  bool exact = false;  // refuse to resume where bits may differ (threads, processor, device)
  Placement placement = {};
  std::function<void(const Progress&)> on_progress = {};
  std::function<bool()> stop_requested = {};  // polled after each step
  // One line that a user should see, as of bits that may differ on another machine.
  std::function<void(const std::string&)> on_warning = {};
};

struct RunResult {
  bool finished = false;  // false: stopped on request, committed
  TaskKind task = TaskKind::classification;
  ScoreMatrix matrix{1};
  AnytimeCurve anytime;                 // without points unless the run's options ask for them
  std::optional<double> gate_accuracy;  // share of test inputs given to their own generation
  std::vector<std::string> targets;     // of a regression
  // Of a regression, at the last evaluation: for each test set the root mean squared error of each
  // target, in the units of the data.
  std::vector<std::vector<double>> errors;
  // Generations that were unlearned after all this was measured: the model is another one now.
  std::vector<std::uint32_t> unlearned_since;
  std::int64_t steps = 0;
  double seconds = 0;                  // of this process
  std::string state_digest;            // of the last commit; empty without a store
  Placement placement;                 // where this process computed
  std::optional<PagerCounters> pager;  // of this process, where there is a pool

  // acc (or as the task's metric is called), bwt.gem, ..., and those of the anytime curve if the
  // run has one; null where empty.
  boost::json::object metrics() const;
  // The object of --json: acc, bwt.gem, ... at the top level.
  boost::json::object to_json() const;
};

// A run over one store, or over none. Opening an existing run loads it; its state is that of the
// last commit. Single-threaded.
//
// Commits: after row 0 of the matrix; while training goes on, every commit_every steps (at the next
// step after the one before is written); and after each experience in the order freeze, solve the
// gate, evaluate all test sets, commit with snapshot "experience-N". A kill between any two resumes
// from the commit before and repeats the same bits.
class Trainer {
 public:
  // Starts a run, or resumes the one in `store` when its configuration equals `config`. A stream of
  // further data (further_stream) opens a new experience in a store whose run has finished; see
  // further_data.h. Throws InvalidOptions naming the differing fields otherwise, and what cannot
  // go on; nothing is written before run().
  Trainer(const RunConfig& config, Stream stream, storage::PageStore* store,
          const RunSettings& settings);
  ~Trainer();

  // Works until the stream ends or stop_requested. On a finished run returns its result at once.
  RunResult run();

  Model& model();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The configuration of the run that a store holds; not_found when it holds none.
storage::Result<RunConfig> stored_config(const storage::PageReader& store);

// What is needed to use a learnt store without its stream.
struct LearntModel {
  RunConfig config;
  Preprocessing preprocessing;
  Preprocessing targets;  // of a regression; else empty
  std::shared_ptr<const Task> task;
  storage::Digest data_digest;  // of the data set it was learnt from
  std::unique_ptr<Model> model;
  Placement placement;           // where the model computes
  bool finished = false;         // the run's stream has ended
  std::int64_t experiences = 0;  // that were learnt to their end, of the stream's
  // The pager's counters at the last commit of a run, since that process began; empty without one.
  boost::json::object pager;
  // The test sets that the store keeps, as read (x and y); of a run over stream single.
  std::vector<Dataset> tests;

  // What a stream of these test sets, or of further data, has to know.
  LearntBefore known() const;
};
// `on_warning` is told why a placement that may do without its device does. Throws StorageError,
// DataError, DeviceError.
LearntModel load_learnt(const storage::PageReader& store, std::int64_t budget_bytes,
                        const Placement& placement = {},
                        const std::function<void(const std::string&)>& on_warning = {});
// Throws DataError unless the stream's data set is the one that the store learnt from.
void require_same_data(const LearntModel& learnt, const Stream& stream);
// Commits what was changed in the model by hand (grow, freeze), with `action` in the note.
storage::CommitInfo commit_model(storage::PageStore& store, Model& model, const std::string& action,
                                 const std::string& snapshot);

}  // namespace perennial::continual
