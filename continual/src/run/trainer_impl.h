// SPDX-License-Identifier: Apache-2.0
// A run in progress: what Trainer holds, and its parts, each in a file of its own.
#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "metrics/anytime_probe.h"
#include "metrics/routing_probe.h"
#include "model/dense_optimizer.h"
#include "perennial/continual/evaluate.h"
#include "perennial/continual/strategy.h"
#include "perennial/continual/trainer.h"
#include "perennial/core/sparse_optimizer.h"
#include "run/boundaries.h"
#include "run/committer.h"
#include "run/experience_record.h"
#include "run/run_record.h"
#include "run/run_state.h"
#include "strategies/strategy_state.h"

namespace perennial::continual {

struct Trainer::Impl {
  RunSettings settings;
  Stream stream;
  storage::PageStore* store;
  RunState state;
  std::shared_ptr<Strategy> strategy;
  StrategyState strategy_state{strategy};
  RunEntries run_entries{state};
  Stream training;
  std::shared_ptr<Model> model;
  DenseOptimizer dense;
  std::vector<std::unique_ptr<SparseOptimizer>> sparse;  // one a pool; none where none trains
  RunRecord record;
  Boundaries boundaries;
  AnytimeProbe probe;
  RoutingProbe routing;
  ExperienceClock clock;
  bool resumed = false;
  bool continues = false;  // opens an experience on further data
  std::string state_digest;
  Progress progress;
  // When the last commit was started, and whether one is due.
  std::chrono::steady_clock::time_point last_commit = std::chrono::steady_clock::now();
  bool commit_due = false;
  // Everything that commits consist of.
  Participants participants() {
    return Participants({model.get(), &dense, &strategy_state, &run_entries});
  }
  std::optional<Committer> committer;  // last: it ends before what it reads

  // trainer_start.cc: a new run, or the one that the store holds.
  Impl(const RunConfig& config, Stream run_stream, storage::PageStore* run_store,
       const RunSettings& run_settings);
  // Batch norm has no statistics of one example; the last batch of a pass may be so small.
  void refuse_single_examples() const;
  void resume();
  // The rest of resume() for further data: a new experience, with what it brings.
  void take_further(RunState stored);
  std::int64_t examples_before(const Position& position) const;

  // trainer.cc
  // The note of the commit that the run goes on from; empty of a new run.
  boost::json::object last_note() const;
  // There is nothing left to learn, nor to record: the store may have gone back to the end of
  // another run than the one last recorded.
  bool is_settled() const;
  // False when stopped on request.
  bool work();
  void evaluate_row(std::int64_t row);
  // The column of a test set that came with further data, in the row before it is learnt.
  void evaluate_further();
  // What was learnt is safe by now, so a report that cannot be written does not fail the run.
  void write_report() const;
  // After the first `learnt` experiences.
  Evaluation evaluate_now(std::int64_t learnt);
  // Tells the record of a row of the matrix.
  void record_row(std::int64_t row);
  void report(const char* phase);
  bool stop_requested() const;
  StrategyContext context();

  // trainer_steps.cc
  // Trains the current experience from the current position. False when stopped on request.
  bool train_experience();
  void train_step(const Batch& batch);
  // The forward and backward of a step, in parts of micro_batch rows. Returns its loss.
  double accumulate_gradients(StrategyContext& strategy_context, TrainingBatch& rows);
  void step_optimizers(StrategyContext& strategy_context, const TrainingBatch& rows);
  void set_learning_rate();
  // Evaluates on the fixed part of the test sets; `end`: the experience has ended.
  void take_point(std::int64_t experience, std::int64_t minibatch, bool end);

  // trainer_commits.cc
  void make_committer();
  // The state as it is now.
  storage::CommitRequest freeze(const std::string& action, const std::string& snapshot);
  // Durable when it returns.
  void commit(const std::string& action, const std::string& snapshot);
  // Starts a commit if one is due and none is in flight; training goes on.
  void commit_if_due();
  // After a restore to an earlier experience its successors' names are taken: "experience-3-2"
  // then.
  std::string free_name(const std::string& wanted) const;
  // The mean score on what was learnt so far, where it was just measured; at the end that is the
  // metric acc.
  std::optional<double> acc_so_far(const std::string& action) const;
  // Of the whole store; not while training waits for it.
  boost::json::value store_bytes(const std::string& action) const;
};

}  // namespace perennial::continual
