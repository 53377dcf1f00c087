// SPDX-License-Identifier: Apache-2.0
// Replaying from a memory.
#include "strategies/replay.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

namespace perennial::continual {

Replay::Replay(std::string name, const RunConfig& config, const StreamShape& shape, From from,
               bool with_outputs, int samples)
    : name_(std::move(name)),
      memory_(config.train.strategy_options[kBuffer], config.train.strategy_options[kMemory],
              shape.classes, config.train.strategy_options[kStrategySeed]),
      fill_(config.train.strategy_options[kMemoryFill]),
      draw_(config.train.strategy_options[kReplayBatch] > 0
                ? config.train.strategy_options[kReplayBatch]
                : config.train.batch),
      from_(from),
      with_outputs_(with_outputs),
      samples_(samples) {}

std::vector<const DeclaredOption*> Replay::options(std::vector<const DeclaredOption*> own) {
  own.insert(own.begin(), {&kMemory, &kBuffer, &kMemoryFill, &kReplayBatch});
  own.push_back(&kStrategySeed);
  return own;
}

void Replay::refuse(const RunConfig& config) {
  const BufferKind buffer = config.train.strategy_options[kBuffer];
  if (config.task() != TaskKind::regression) return;
  if (buffer != BufferKind::class_balanced && buffer != BufferKind::greedy) return;
  throw InvalidOptions("buffer " + std::string(enum_name(buffer)) +
                       " needs classes, and task regression has none");
}

void Replay::before_step(StrategyContext& context, TrainingBatch& batch) {
  replayed_.clear();
  if (memory_.size() == 0 || samples_ == 0) return;
  std::vector<torch::Tensor> x = {batch.x}, y = {batch.y};
  std::int64_t begin = batch.rows();
  for (int i = 0; i < samples_; ++i) {
    replayed_.push_back({begin, memory_.sample(draw_, context.stream.preprocessing(),
                                               from_ == From::all ? 0 : context.experience)});
    x.push_back(replayed_.back().examples.x);
    y.push_back(replayed_.back().examples.y);
    begin += replayed_.back().count();
  }
  batch.x = at::cat(x);
  batch.y = at::cat(y);
}

void Replay::after_step(StrategyContext& context, const TrainingBatch& batch) {
  if (context.epoch > 0 || fill_ == FillKind::experience) return;
  Examples fresh{batch.fresh_x(), batch.fresh_y(), {}};
  if (with_outputs_) fresh.outputs = batch.fresh_outputs();
  memory_.add(fresh, context.stream.preprocessing(), context.experience);
}

void Replay::after_experience(StrategyContext& context) {
  if (fill_ == FillKind::stream || memory_.capacity() == 0) return;
  const at::NoGradGuard no_grad;
  const TrainOptions& options = context.config.train;
  const std::int64_t steps = context.stream.steps_per_epoch(context.experience, options.batch);
  for (std::int64_t step = 0; step < steps; ++step) {
    const Batch batch =
        context.stream.train_batch(context.experience, 0, step, options.batch, options.train_seed);
    Examples examples{batch.x, batch.y, {}};
    if (with_outputs_) examples.outputs = context.model.test_forward(batch.x);
    memory_.add(examples, context.stream.preprocessing(), context.experience);
  }
}

void Replay::visit_state(StateVisitor& visitor) {
  if (memory_.capacity() > 0) memory_.visit(visitor, name_);
}

bool Replay::extend(const StreamShape& before, const StreamShape& now) {
  return before.classes == now.classes || (!with_outputs_ && memory_.add_classes(now.classes));
}

}  // namespace perennial::continual
