// SPDX-License-Identifier: Apache-2.0
// The steps of one experience.
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

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

double Trainer::Impl::accumulate_gradients(StrategyContext& strategy_context, TrainingBatch& rows) {
  dense.zero_grad();
  const std::int64_t part = state.config.train.micro_batch, all = rows.rows();
  if (part == 0 || all <= part) {
    rows.outputs = model->train_forward(rows.x);
    const torch::Tensor loss = step_loss(*strategy, strategy_context, rows);
    loss.backward();
    return loss.item<double>();
  }
  std::vector<torch::Tensor> outputs;
  double sum = 0;
  for (std::int64_t begin = 0; begin < all; begin += part) {
    const std::int64_t count = std::min(part, all - begin);
    const torch::Tensor some = model->train_forward(rows.x.narrow(0, begin, count));
    const torch::Tensor loss =
        stream.task().losses(some, rows.y.narrow(0, begin, count)).sum() / static_cast<double>(all);
    loss.backward();
    sum += loss.item<double>();
    outputs.push_back(some.detach());
  }
  rows.outputs = at::cat(outputs);
  return sum;
}

// Experts that nobody asks for are updated straight from the step's uses.
void Trainer::Impl::step_optimizers(StrategyContext& strategy_context, const TrainingBatch& rows) {
  const double most = state.config.train.clip_norm;
  std::vector<CompactGradient> experts;  // one a pool, where somebody asks
  if (!sparse.empty() && (most > 0 || strategy->reads_expert_gradients())) {
    for (const auto& pool : model->experts()->pools()) {
      experts.push_back(pool->compact_gradient());
    }
    if (strategy->reads_expert_gradients()) {
      strategy->after_expert_backward(strategy_context, rows, experts);
    }
  }
  if (most > 0) {
    double squares = dense.squared_norm();
    for (const CompactGradient& gradient : experts) {
      const double norm =
          at::linalg_vector_norm(gradient.values, 2, {}, false, at::kDouble).item<double>();
      squares += norm * norm;
    }
    const double norm = std::sqrt(squares);
    if (norm > most) {
      dense.scale_gradients(most / norm);
      for (CompactGradient& gradient : experts) gradient.values.mul_(most / norm);
    }
  }
  dense.step();
  for (std::size_t i = 0; i < sparse.size(); ++i) {
    if (experts.empty()) {
      sparse[i]->step();
    } else {
      sparse[i]->step(experts[i]);
    }
  }
}

void Trainer::Impl::set_learning_rate() {
  const TrainOptions& options = state.config.train;
  const Position& at = state.position;
  const std::int64_t steps = training.steps_per_epoch(at.experience, options.batch);
  const std::int64_t step = at.epoch * steps + at.step;
  const double factor = lr_factor(options.lr_schedule, step, options.epochs * steps) *
                        warmup_factor(step, options.warmup);
  dense.scale_lr(factor);
  for (const auto& optimizer : sparse) optimizer->set_lr(factor * options.experts().lr);
}

void Trainer::Impl::train_step(const Batch& batch) {
  StrategyContext strategy_context = context();
  TrainingBatch rows{batch.x, batch.y, batch.y.size(0)};
  strategy->before_step(strategy_context, rows);
  if (strategy_context.regrown) dense.set_parameters(model->trainable());
  if (!model->learns_by_gradient()) {
    model->observe(batch.x, batch.y);
  } else if (rows.train) {
    const double value = accumulate_gradients(strategy_context, rows);
    strategy->after_backward(strategy_context, rows);
    set_learning_rate();
    step_optimizers(strategy_context, rows);
    strategy->after_step(strategy_context, rows);
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
    if (model->experts() != nullptr) {
      event["pager"] = counters_json(model->experts()->counters());
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
