// SPDX-License-Identifier: Apache-2.0
// The training loop, evaluation, commits and exact resume.
#include "perennial/continual/trainer.h"

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <boost/json/value_to.hpp>
#include <chrono>
#include <utility>

#include "anytime_probe.h"
#include "committer.h"
#include "dense_optimizer.h"
#include "experience_record.h"
#include "perennial/continual/evaluate.h"
#include "perennial/continual/report.h"
#include "perennial/continual/strategy.h"
#include "perennial/core/sparse_optimizer.h"
#include "run_note.h"
#include "run_record.h"
#include "run_result.h"
#include "run_state.h"
#include "strategy_state.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

// Steps between two "step" events.
constexpr std::int64_t kStepEvents = 50;

}  // namespace

struct Trainer::Impl {
  RunSettings settings;
  Stream stream;
  storage::PageStore* store;
  RunState state;
  std::shared_ptr<Strategy> strategy;
  StrategyState strategy_state;
  Stream training;
  std::shared_ptr<Model> model;
  DenseOptimizer dense;
  std::optional<SparseOptimizer> sparse;
  RunRecord record;
  AnytimeProbe probe;
  ExperienceClock clock;
  bool resumed = false;
  std::string state_digest;
  Progress progress;
  // When the last commit was started, and whether one is due.
  std::chrono::steady_clock::time_point last_commit = std::chrono::steady_clock::now();
  bool commit_due = false;
  std::optional<Committer> committer;  // last: it ends before what it reads

  Impl(const RunConfig& config, Stream run_stream, storage::PageStore* run_store,
       const RunSettings& run_settings)
      : settings(run_settings),
        stream(std::move(run_stream)),
        store(run_store),
        strategy(make_strategy(config,
                               {stream.classes(), stream.experiences(), stream.preprocessing()})),
        training(strategy->training_stream(stream)),
        dense(config.train),
        record(settings.run_folder),
        probe(stream, config.train.anytime) {
    state.config = config;
    state.preprocessing = stream.preprocessing();
    state.label_names = stream.label_names();
    state.data_digest = stream.data_digest();
    state.matrix = AccuracyMatrix(stream.experiences());
    state.anytime = probe.empty_curve(training);
    refuse_single_examples();
    const storage::StatusCode head =
        store == nullptr ? storage::StatusCode::not_found : store->head().status().code();
    if (head == storage::StatusCode::ok) {
      resume();
    } else if (head != storage::StatusCode::not_found) {
      throw StorageError(store->head().status());
    } else {
      model = make_model(config, stream.features(), stream.classes(), store, settings.budget_bytes,
                         {stream.image_rows(), stream.image_cols()});
    }
    if (model->peer() != nullptr) {
      if (model->learns_by_gradient()) {
        sparse.emplace(model->peer()->pool(), config.train.experts());
      }
      model->peer()->require_budget();
    }
    for (std::int64_t e = 0; e < training.experiences(); ++e) {
      progress.examples_total += training.train_size(e) * config.train.epochs;
    }
    progress.experiences = training.experiences();
    if (store != nullptr) make_committer();
  }

  // Batch norm has no statistics of one example; the last batch of a pass may be so small.
  void refuse_single_examples() const {
    const RunConfig& config = state.config;
    if (config.model.model != ModelKind::peer || config.model.peer.query_norm != QueryNorm::batch) {
      return;
    }
    for (std::int64_t e = 0; e < training.experiences(); ++e) {
      if (training.train_size(e) % config.train.batch != 1) continue;
      throw InvalidOptions("the " + std::to_string(training.train_size(e)) +
                           " training examples of experience " + std::to_string(e + 1) +
                           " end in a batch of one, and query_norm batch needs two; use another "
                           "batch than " +
                           std::to_string(config.train.batch) + ", or a limit");
    }
  }

  void resume() {
    storage::Result<RunState> stored = load_run_state(*store);
    if (!stored.ok()) throw StorageError(stored.status());
    const std::vector<std::string> differing = differences(stored->config, state.config);
    if (!differing.empty()) {
      std::string message = "the store's run has another configuration; ";
      for (const std::string& field : differing) message += field + "; ";
      throw InvalidOptions(message + "resume it with its own, or use another store");
    }
    require_data(stored->data_digest, stream);
    const json::object here = machine();
    const json::object there = note_with(*store, "machine");
    if (settings.exact && !there.empty() && there.at("machine") != json::value(here)) {
      throw InvalidOptions("the run was made with " + json::serialize(there.at("machine")) +
                           ", this process has " + json::serialize(here) +
                           ": it would not continue bit for bit");
    }
    if (settings.on_warning && !stored->finished && !there.empty() &&
        there.at("machine") != json::value(here)) {
      settings.on_warning("the run was made with " + json::serialize(there.at("machine")) +
                          ", this process has " + json::serialize(here) +
                          ": it may not continue bit for bit");
    }
    stored->anytime = AnytimeCurve{state.anytime.options, state.anytime.test_sets,
                                   state.anytime.experiences, std::move(stored->anytime.points)};
    state = std::move(*stored);
    model = load_model(state.config, stream.features(), stream.classes(), *store,
                       settings.budget_bytes);
    dense.load(*store);
    strategy_state.load(*strategy, *store);
    state_digest = value_or_throw(store->head()).state_digest.hex();
    resumed = true;
  }

  void report(const char* phase) {
    if (!settings.on_progress) return;
    progress.phase = phase;
    settings.on_progress(progress);
  }

  bool stop_requested() const { return settings.stop_requested && settings.stop_requested(); }

  StrategyContext context() {
    return {*model,
            training,
            state.config,
            state.position.experience,
            state.position.epoch,
            [this](std::string_view name, json::object fields) { record.event(name, fields); }};
  }

  // After a restore to an earlier experience its successors' names are taken: "experience-3-2"
  // then.
  std::string free_name(const std::string& wanted) const {
    std::string name = wanted;
    for (int n = 2; !name.empty() && store->resolve(name).ok(); ++n) {
      name = wanted + "-" + std::to_string(n);
    }
    return name;
  }

  // The mean accuracy on what was learnt so far, where it was just measured; at the end that is the
  // metric acc.
  std::optional<double> acc_so_far(const std::string& action) const {
    const std::int64_t learnt = state.position.experience;
    if (state.finished) return acc(state.matrix);
    if (action != "experience" || !state.matrix.has_row(learnt)) return std::nullopt;
    double sum = 0;
    for (std::int64_t j = 0; j < learnt; ++j) sum += state.matrix.at(learnt, j);
    return sum / static_cast<double>(learnt);
  }

  // The state as it is now.
  storage::CommitRequest freeze(const std::string& action, const std::string& snapshot) {
    storage::CommitRequest request;
    model->add_to_commit(request);
    dense.add_to_commit(request);
    strategy_state.add_to_commit(*strategy, request);
    state.add_to_commit(request);
    request.snapshot = free_name(snapshot);
    if (settings.retention && !(*settings.retention == store->retention())) {
      request.retention = settings.retention;
    }
    json::object note{{"action", action},
                      {"experience", state.position.experience},
                      {"steps", state.steps},
                      {"events_bytes", record.event_bytes()},
                      {"experience_seconds", clock.seconds()},
                      {"machine", machine()}};
    if (model->peer() != nullptr) {
      note["generations"] = model->peer()->pool().generations().size();
      note["pager"] = counters_json(model->peer()->pool().counters());
    }
    if (const std::optional<double> value = acc_so_far(action)) note["acc"] = *value;
    request.note = json::serialize(note);
    last_commit = std::chrono::steady_clock::now();
    commit_due = false;
    return request;
  }

  // Of the whole store; not while training waits for it.
  json::value store_bytes(const std::string& action) const {
    if (action == "progress") return nullptr;
    const storage::Result<std::uint64_t> bytes = store->size_bytes();
    return bytes.ok() ? json::value(*bytes) : json::value(nullptr);
  }

  void make_committer() {
    committer.emplace(
        *store,
        Committer::Hooks{
            [this](const std::string& action, const std::string& snapshot) {
              return freeze(action, snapshot);
            },
            [this](const storage::CommitInfo& info, const std::string& action, const std::string&) {
              model->committed();
              dense.committed();
              strategy_state.committed();
              state_digest = info.state_digest.hex();
              record.event("commit", {{"commit", info.commit},
                                      {"action", action},
                                      {"snapshot", info.snapshot},
                                      {"pages_written", info.pages_written},
                                      {"bytes_written", info.bytes_written},
                                      {"experience", state.position.experience},
                                      {"store_bytes", store_bytes(action)},
                                      {"state_digest", state_digest}});
            },
            [this](const storage::Status& status) {
              model->commit_failed();
              commit_due = true;
              record.event("commit_failed", {{"error", status.to_string()}});
              if (settings.on_warning) {
                settings.on_warning("a commit failed, the one before stays current: " +
                                    status.message());
              }
            },
            settings.stop_requested},
        std::chrono::duration<double>(settings.commit_patience_seconds));
  }

  // Durable when it returns.
  void commit(const std::string& action, const std::string& snapshot) {
    if (!committer) return;
    report("committing");
    committer->commit(action, snapshot);
  }

  // Starts a commit if one is due and none is in flight; training goes on.
  void commit_if_due() {
    if (!committer) return;
    committer->poll();
    const std::int64_t every = state.config.train.commit_every;
    const auto since = std::chrono::steady_clock::now() - last_commit;
    commit_due = commit_due || (every > 0 && state.steps % every == 0) ||
                 (settings.commit_seconds > 0 &&
                  since >= std::chrono::duration<double>(settings.commit_seconds)) ||
                 (settings.commit_dirty_bytes > 0 && model->peer() != nullptr &&
                  std::cmp_greater_equal(model->peer()->pool().counters().dirty_bytes,
                                         settings.commit_dirty_bytes));
    if (commit_due) committer->start("progress");
  }

  void evaluate_row(std::int64_t row) {
    report("evaluating");
    const std::unique_ptr<Model> answering = answering_model(model, strategy);
    Evaluation evaluation = evaluate(*answering, stream, state.config.gate() == GateKind::oracle);
    state.gate_accuracy = evaluation.gate_accuracy;
    json::array values(evaluation.accuracy.begin(), evaluation.accuracy.end());
    state.matrix.set_row(row, std::move(evaluation.accuracy));
    record.event("evaluate",
                 {{"row", row}, {"steps", state.steps}, {"accuracy", std::move(values)}});
    record.write_metrics(state.matrix, state.anytime);
  }

  // Evaluates on the fixed part of the test sets; `end`: the experience has ended.
  void take_point(std::int64_t experience, std::int64_t minibatch, bool end) {
    AnytimePoint point{experience + 1, minibatch, state.steps, end, {}};
    if (!probe.wanted(point)) return;
    const std::unique_ptr<Model> answering = answering_model(model, strategy);
    point.accuracy =
        probe.measure(*answering, state.config.gate() == GateKind::oracle,
                      state.anytime.experiences == 1 ? stream.experiences() : point.experience);
    record.event("anytime", point_json(point));
    clock.exclude(probe.last_seconds());
    state.anytime.points.push_back(std::move(point));
  }

  void step_experts(StrategyContext& strategy_context, const TrainingBatch& rows) {
    if (!sparse) return;
    if (!strategy->reads_expert_gradients()) return sparse->step();
    CompactGradient gradient = model->peer()->pool().compact_gradient();
    strategy->after_expert_backward(strategy_context, rows, gradient);
    sparse->step(gradient);
  }

  void set_learning_rate() {
    const TrainOptions& options = state.config.train;
    const Position& at = state.position;
    const std::int64_t steps = training.steps_per_epoch(at.experience, options.batch);
    const double factor =
        lr_factor(options.lr_schedule, at.epoch * steps + at.step, options.epochs * steps);
    dense.set_lr(factor * options.lr);
    if (sparse) sparse->set_lr(factor * options.experts().lr);
  }

  void train_step(const Batch& batch) {
    StrategyContext strategy_context = context();
    TrainingBatch rows{batch.x, batch.y, batch.y.size(0)};
    strategy->before_step(strategy_context, rows);
    if (!model->learns_by_gradient()) {
      model->observe(batch.x, batch.y);
    } else if (rows.train) {
      dense.zero_grad();
      rows.logits = model->train_forward(rows.x);
      const torch::Tensor loss = step_loss(*strategy, strategy_context, rows);
      loss.backward();
      strategy->after_backward(strategy_context, rows);
      set_learning_rate();
      dense.step();
      step_experts(strategy_context, rows);
      strategy->after_step(strategy_context, rows);
      progress.loss = loss.item<double>();
    }
    ++state.steps;
    progress.examples_done += batch.y.size(0);
    if (state.steps % kStepEvents == 0) {
      json::object event{{"steps", state.steps},
                         {"experience", state.position.experience},
                         {"loss", progress.loss}};
      if (model->peer() != nullptr) {
        event["pager"] = counters_json(model->peer()->pool().counters());
      }
      record.event("step", std::move(event));
    }
  }

  // Trains the current experience from the current position. False when stopped on request.
  bool train_experience() {
    Position& at = state.position;
    const TrainOptions& options = state.config.train;
    const std::int64_t steps = training.steps_per_epoch(at.experience, options.batch);
    if (at.at_start()) take_point(at.experience, 0, false);
    while (at.epoch < options.epochs) {
      train_step(training.train_batch(at.experience, at.epoch, at.step, options.batch,
                                      options.train_seed));
      if (++at.step == steps) {
        at.step = 0;
        ++at.epoch;
      }
      take_point(at.experience, at.epoch * steps + at.step, false);
      report("training");
      if (stop_requested()) {
        commit("stopped", "");
        return false;
      }
      commit_if_due();
    }
    return true;
  }

  std::int64_t examples_before(const Position& position) const {
    std::int64_t done = 0;
    const TrainOptions& options = state.config.train;
    for (std::int64_t e = 0; e < position.experience; ++e) {
      done += training.train_size(e) * options.epochs;
    }
    if (position.experience < training.experiences()) {
      done += training.train_size(position.experience) * position.epoch +
              std::min(position.step * options.batch, training.train_size(position.experience));
    }
    return done;
  }

  // What was learnt is safe by now: a report that cannot be written is no failure of the run.
  void write_report() const {
    if (settings.run_folder.empty()) return;
    try {
      write_run_report(settings.run_folder);
    } catch (const Error& error) {
      if (settings.on_warning) settings.on_warning(std::string("no report: ") + error.what());
    }
  }

  bool work() {
    if (state.finished) return true;
    const json::object note = resumed ? note_with(*store, "events_bytes") : json::object{};
    record.open(note.empty() ? 0 : json::value_to<std::uint64_t>(note.at("events_bytes")));
    progress.examples_done = examples_before(state.position);
    progress.experience = state.position.experience;
    if (!resumed) {
      record.event("start", {{"config", state.config.to_json()}, {"machine", machine()}});
      evaluate_row(0);
      commit("created", "");
    } else {
      record.event("resume",
                   {{"experience", state.position.experience},
                    {"steps", state.steps},
                    {"store_bytes", store_bytes("resume")},
                    {"machine", machine()},
                    {"machine_before", note.empty() ? json::value() : note.at("machine")}});
    }
    const json::value* trained_before = note.if_contains("experience_seconds");
    double seconds = trained_before != nullptr ? json::value_to<double>(*trained_before) : 0;
    while (!state.finished) {
      const std::int64_t experience = state.position.experience;
      clock.start(std::exchange(seconds, 0));
      progress.experience = experience;
      StrategyContext strategy_context = context();
      if (state.position.at_start()) strategy->before_experience(strategy_context);
      dense.set_parameters(model->trainable());
      if (!strategy->skips_experience() && !train_experience()) return false;
      if (committer) committer->wait();
      StrategyContext after = context();
      strategy->after_experience(after);
      dense.set_parameters(model->trainable());
      clock.stop();
      // Joint training has one experience of its own; it ends where the stream's last one does.
      const bool last = experience + 1 == training.experiences();
      state.position = {experience + 1, 0, 0};
      take_point(experience,
                 training.steps_per_epoch(experience, state.config.train.batch) *
                     state.config.train.epochs,
                 true);
      evaluate_row(last ? stream.experiences() : experience + 1);
      state.finished = last;
      record.event("experience",
                   experience_json(experience + 1, state.steps,
                                   training.train_size(experience) * state.config.train.epochs,
                                   clock.seconds(), *model, state_bytes(*strategy)));
      clock = {};
      commit("experience", "experience-" + std::to_string(experience + 1));
      if (!last && stop_requested()) return false;
    }
    return true;
  }
};

Trainer::Trainer(const RunConfig& config, Stream stream, storage::PageStore* store,
                 const RunSettings& settings) {
  config.validate();
  impl_ = std::make_unique<Impl>(config, std::move(stream), store, settings);
}

Trainer::~Trainer() = default;

RunResult Trainer::run() {
  const auto start = std::chrono::steady_clock::now();
  const bool was_finished = impl_->state.finished;
  RunResult result;
  result.finished = impl_->work();
  result.matrix = impl_->state.matrix;
  result.anytime = impl_->state.anytime;
  result.gate_accuracy = impl_->state.gate_accuracy;
  result.steps = impl_->state.steps;
  result.state_digest = impl_->state_digest;
  if (impl_->model->peer() != nullptr) result.pager = impl_->model->peer()->pool().counters();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!was_finished) {
    impl_->record.event(
        result.finished ? "end" : "stopped",
        {{"seconds", result.seconds}, {"steps", result.steps}, {"metrics", result.metrics()}});
  }
  if (!was_finished || !impl_->record.has_summary()) {
    impl_->record.write_summary(summary_json(result, impl_->state.config));
    if (result.finished) impl_->write_report();
  }
  return result;
}

Model& Trainer::model() { return *impl_->model; }

}  // namespace perennial::continual
