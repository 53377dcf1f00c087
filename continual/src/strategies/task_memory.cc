// SPDX-License-Identifier: Apache-2.0
// Memories by experience.
#include "strategies/task_memory.h"

#include <ATen/ops/cat.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

namespace perennial::continual {

TaskMemory::TaskMemory(std::string name, const RunConfig& config, const StreamShape& shape)
    : name_(std::move(name)),
      each_(config.train.strategy_options[kTaskMemory]),
      slots_(each_ * shape.experiences),
      seen_(static_cast<std::size_t>(shape.experiences)) {}

void TaskMemory::after_step(StrategyContext& context, const TrainingBatch& batch) {
  if (context.epoch > 0 || each_ == 0) return;
  std::int64_t& seen = seen_[static_cast<std::size_t>(context.experience)];
  std::vector<std::pair<std::int64_t, std::int64_t>> rows;
  for (std::int64_t row = 0; row < batch.fresh; ++row) {
    rows.emplace_back(slot(context.experience, seen++ % each_), row);
  }
  slots_.put(rows, {batch.fresh_x(), batch.fresh_y(), {}}, context.stream.preprocessing());
}

std::int64_t TaskMemory::held(std::int64_t experience) const {
  return std::min(seen_[static_cast<std::size_t>(experience)], each_);
}

std::int64_t TaskMemory::held_before(std::int64_t experience) const {
  std::int64_t count = 0;
  for (std::int64_t e = 0; e < experience; ++e) count += held(e);
  return count;
}

Examples TaskMemory::take(StrategyContext& context, const std::vector<std::int64_t>& slots) const {
  return slots_.take(slots, context.stream.preprocessing());
}

torch::Tensor TaskMemory::gradient_of(StrategyContext& context, const Examples& examples) {
  const torch::Tensor loss =
      context.stream.task().loss(context.model.train_forward(examples.x), examples.y);
  std::vector<torch::Tensor> parts = torch::autograd::grad({loss}, parameters_of(context.model));
  for (torch::Tensor& part : parts) part = part.reshape({-1});
  return at::cat(parts);
}

torch::Tensor TaskMemory::gradient(StrategyContext& context) {
  ParameterVector gradients;
  gradients.set_gradients(parameters_of(context.model));
  return gradients.flat();
}

void TaskMemory::set_gradient(StrategyContext& context, const torch::Tensor& gradient) {
  std::int64_t begin = 0;
  for (torch::Tensor& parameter : parameters_of(context.model)) {
    parameter.mutable_grad().copy_(
        gradient.narrow(0, begin, parameter.numel()).view(parameter.sizes()));
    begin += parameter.numel();
  }
}

void TaskMemory::visit_state(StateVisitor& visitor) {
  if (each_ == 0) return;
  slots_.visit(visitor, name_);
  visit_numbers(visitor, name_ + "/seen", seen_);
}

}  // namespace perennial::continual
