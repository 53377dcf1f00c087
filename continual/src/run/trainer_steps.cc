// SPDX-License-Identifier: Apache-2.0
// The steps of one experience.
#include <cmath>
#include <string>
#include <utility>

#include "run/run_note.h"
#include "run/trainer_impl.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

// Steps between two "step" events.
constexpr std::int64_t kStepEvents = 50;

}  // namespace

// Evaluates on the fixed part of the test sets; `end`: the experience has ended.
void Trainer::Impl::take_point(std::int64_t experience, std::int64_t minibatch, bool end) {
  AnytimePoint point{experience + 1, minibatch, state.steps, end, {}};
  if (!probe.wanted(point)) return;
  const std::unique_ptr<Model> answering = answering_model(model, strategy);
  point.scores =
      probe.measure(*answering, state.config.gate() == GateKind::oracle,
                    state.anytime.experiences == 1 ? stream.experiences() : point.experience);
  record.event("anytime", point_json(point, state.config.task()));
  clock.exclude(probe.last_seconds());
  state.anytime.points.push_back(std::move(point));
}

void Trainer::Impl::step_experts(StrategyContext& strategy_context, const TrainingBatch& rows) {
  if (!sparse) return;
  if (!strategy->reads_expert_gradients()) return sparse->step();
  CompactGradient gradient = model->peer()->pool().compact_gradient();
  strategy->after_expert_backward(strategy_context, rows, gradient);
  sparse->step(gradient);
}

void Trainer::Impl::set_learning_rate() {
  const TrainOptions& options = state.config.train;
  const Position& at = state.position;
  const std::int64_t steps = training.steps_per_epoch(at.experience, options.batch);
  const double factor =
      lr_factor(options.lr_schedule, at.epoch * steps + at.step, options.epochs * steps);
  dense.set_lr(factor * options.lr);
  if (sparse) sparse->set_lr(factor * options.experts().lr);
}

void Trainer::Impl::train_step(const Batch& batch) {
  StrategyContext strategy_context = context();
  TrainingBatch rows{batch.x, batch.y, batch.y.size(0)};
  strategy->before_step(strategy_context, rows);
  if (strategy_context.regrown) dense.set_parameters(model->trainable());
  if (!model->learns_by_gradient()) {
    model->observe(batch.x, batch.y);
  } else if (rows.train) {
    dense.zero_grad();
    rows.outputs = model->train_forward(rows.x);
    const torch::Tensor loss = step_loss(*strategy, strategy_context, rows);
    loss.backward();
    strategy->after_backward(strategy_context, rows);
    set_learning_rate();
    dense.step();
    step_experts(strategy_context, rows);
    strategy->after_step(strategy_context, rows);
    const double value = loss.item<double>();
    if (!std::isfinite(value) && std::isfinite(progress.loss) && settings.on_warning) {
      settings.on_warning("the loss of step " + std::to_string(state.steps + 1) +
                          " is not finite: the run has diverged");
    }
    progress.loss = value;
  }
  ++state.steps;
  progress.examples_done += batch.y.size(0);
  if (state.steps % kStepEvents == 0) {
    json::object event{
        {"steps", state.steps},
        {"experience", state.position.experience},
        {"loss", std::isfinite(progress.loss) ? json::value(progress.loss) : json::value()}};
    if (model->peer() != nullptr) {
      event["pager"] = counters_json(model->peer()->pool().counters());
    }
    record.event("step", std::move(event));
  }
}

// Trains the current experience from the current position. False when stopped on request.
bool Trainer::Impl::train_experience() {
  Position& at = state.position;
  const TrainOptions& options = state.config.train;
  const std::int64_t steps = training.steps_per_epoch(at.experience, options.batch);
  if (at.at_start()) take_point(at.experience, 0, false);
  while (at.epoch < options.epochs) {
    train_step(
        training.train_batch(at.experience, at.epoch, at.step, options.batch, options.train_seed));
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

}  // namespace perennial::continual
