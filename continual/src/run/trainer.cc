// SPDX-License-Identifier: Apache-2.0
// The run over a stream: experiences, evaluation, results.
#include "perennial/continual/trainer.h"

#include <boost/json/value_to.hpp>
#include <utility>

#include "perennial/continual/evaluate.h"
#include "perennial/continual/report.h"
#include "run/run_note.h"
#include "run/run_result.h"
#include "run/trainer_impl.h"

namespace perennial::continual {

namespace json = boost::json;

void Trainer::Impl::report(const char* phase) {
  if (!settings.on_progress) return;
  progress.phase = phase;
  settings.on_progress(progress);
}

bool Trainer::Impl::stop_requested() const {
  return settings.stop_requested && settings.stop_requested();
}

StrategyContext Trainer::Impl::context() {
  return {*model,
          training,
          state.config,
          state.position.experience,
          state.position.epoch,
          state.position.step,
          [this](std::string_view name, json::object fields) { record.event(name, fields); },
          [this] {
            if (committer) committer->wait();
          }};
}

Evaluation Trainer::Impl::evaluate_now(std::int64_t learnt) {
  report("evaluating");
  const std::unique_ptr<Model> answering = answering_model(model, strategy);
  return evaluate(*answering, stream, state.config.gate() == GateKind::oracle, {}, learnt);
}

void Trainer::Impl::record_row(std::int64_t row) {
  json::array values;
  for (std::int64_t j = 0; j < state.matrix.experiences(); ++j) {
    values.emplace_back(state.matrix.at(row, j));
  }
  json::object event{{"row", row},
                     {"steps", state.steps},
                     {score_names(state.config.task()).values, std::move(values)}};
  if (!state.errors.empty()) event["rmse"] = errors_json(state.targets.columns, state.errors);
  record.event("evaluate", std::move(event));
  record.write_metrics(state.matrix, state.anytime, state.config.task());
}

void Trainer::Impl::evaluate_row(std::int64_t row) {
  Evaluation evaluation = evaluate_now(row);
  state.gate_accuracy = evaluation.gate_accuracy;
  state.errors = std::move(evaluation.errors);
  state.matrix.set_row(row, std::move(evaluation.scores));
  record_row(row);
}

void Trainer::Impl::evaluate_further() {
  const std::int64_t row = state.position.experience;
  Evaluation evaluation = evaluate_now(row);
  state.matrix.set(row, row, evaluation.scores.back());
  state.errors = std::move(evaluation.errors);
  record_row(row);
}

// What was learnt is safe by now, so a report that cannot be written does not fail the run.
void Trainer::Impl::write_report() const {
  if (settings.run_folder.empty()) return;
  try {
    write_run_report(settings.run_folder);
  } catch (const Error& error) {
    if (settings.on_warning) settings.on_warning(std::string("no report: ") + error.what());
  }
}

json::object Trainer::Impl::last_note() const {
  return resumed ? note_with(*store, "events_bytes") : json::object{};
}

bool Trainer::Impl::is_settled() const {
  return state.finished && !record.is_another(record_mark(last_note()));
}

bool Trainer::Impl::work() {
  if (is_settled()) return true;
  const json::object note = last_note();
  std::vector<RecordMark> marks = boundaries.records();
  if (resumed) marks.insert(marks.begin(), record_mark(note));
  record.open(marks, state_digest);
  progress.examples_done = examples_before(state.position);
  progress.experience = state.position.experience;
  if (!resumed) {
    record.event("start",
                 {{"config", state.config.to_json()}, {"machine", machine(settings.placement)}});
    evaluate_row(0);
    commit("created", "");
  } else if (continues) {
    record.event("continue", {{"experience", state.position.experience},
                              {"config", state.config.to_json()},
                              {"classes", stream.classes()},
                              {"examples", training.train_size(state.position.experience)},
                              {"machine", machine(settings.placement)}});
    routing.load(settings.run_folder / "events.jsonl");
    evaluate_further();
    commit("continued", "");
  } else {
    routing.load(settings.run_folder / "events.jsonl");
    record.event("resume", {{"experience", state.position.experience},
                            {"steps", state.steps},
                            {"store_bytes", store_bytes("resume")},
                            {"machine", machine(settings.placement)},
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
    if (after.forget_moments) dense.forget();
    dense.set_parameters(model->trainable());
    clock.stop();
    // Joint training has one experience of its own; it ends where the stream's last one does.
    const bool last = experience + 1 == training.experiences();
    state.position = {experience + 1, 0, 0};
    take_point(
        experience,
        training.steps_per_epoch(experience, state.config.train.batch) * state.config.train.epochs,
        true);
    evaluate_row(last ? stream.experiences() : experience + 1);
    state.finished = last;
    if (last && state.follow) state.follow->pending = {};
    json::object figures = experience_json(
        experience + 1, state.steps, training.train_size(experience) * state.config.train.epochs,
        clock.seconds(), *model, state_bytes(*strategy));
    routing.add_to(figures, *model, experience + 1);
    record.event("experience", figures);
    if (const json::object row = routing.event(*model, experience + 1); !row.empty()) {
      record.event("routing", row);
    }
    clock = {};
    commit("experience", "experience-" + std::to_string(experience + 1));
    if (!last && stop_requested()) return false;
  }
  return true;
}

Trainer::Trainer(const RunConfig& config, Stream stream, storage::PageStore* store,
                 const RunSettings& settings) {
  config.validate();
  if (!settings.placement.or_cpu) {
    impl_ = std::make_unique<Impl>(config, std::move(stream), store, settings);
    return;
  }
  try {
    impl_ = std::make_unique<Impl>(config, stream, store, settings);
  } catch (const DeviceError& error) {
    if (settings.on_warning) settings.on_warning(without_device(error));
    RunSettings on_cpu = settings;
    on_cpu.placement = {};
    impl_ = std::make_unique<Impl>(config, std::move(stream), store, on_cpu);
  }
}

Trainer::~Trainer() = default;

RunResult Trainer::run() {
  const auto start = std::chrono::steady_clock::now();
  const bool was_settled = impl_->is_settled();
  RunResult result;
  result.finished = impl_->work();
  result.task = impl_->state.config.task();
  result.matrix = impl_->state.matrix;
  result.anytime = impl_->state.anytime;
  result.gate_accuracy = impl_->state.gate_accuracy;
  result.targets = impl_->state.targets.columns;
  result.errors = impl_->state.errors;
  result.unlearned_since = impl_->state.unlearned_since();
  result.steps = impl_->state.steps;
  result.state_digest = impl_->state_digest;
  result.placement = impl_->settings.placement;
  if (impl_->model->experts() != nullptr) result.pager = impl_->model->experts()->counters();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!was_settled) {
    impl_->record.event(
        result.finished ? "end" : "stopped",
        {{"seconds", result.seconds}, {"steps", result.steps}, {"metrics", result.metrics()}});
  }
  if (!was_settled || !impl_->record.has_summary()) {
    impl_->record.write_summary(summary_json(result, impl_->state.config));
    if (result.finished) impl_->write_report();
  }
  return result;
}

Model& Trainer::model() { return *impl_->model; }

}  // namespace perennial::continual
