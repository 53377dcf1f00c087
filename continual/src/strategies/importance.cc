// SPDX-License-Identifier: Apache-2.0
// Fisher information and output sensitivity.
#include "strategies/importance.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <functional>

#include "perennial/core/error.h"

namespace perennial::continual {

EnumNames<FisherKind> enum_names(FisherKind) {
  return {{FisherKind::exact, "exact"},
          {FisherKind::sample, "sample"},
          {FisherKind::empirical, "empirical"},
          {FisherKind::batched, "batched"}};
}

namespace {

// Examples a pass takes at once: enough for full speed, few enough to stay small.
constexpr std::int64_t kSampleRows = 256;
// The seed of the order in which examples are taken: with a limit, which ones.
constexpr std::int64_t kOrderSeed = 0;

void for_batches(const Stream& stream, std::int64_t experience, std::int64_t limit,
                 std::int64_t rows, const std::function<void(const Batch&)>& visit) {
  std::int64_t left = stream.train_size(experience);
  if (limit > 0) left = std::min(left, limit);
  for (std::int64_t step = 0; left > 0; ++step) {
    Batch batch = stream.train_batch(experience, 0, step, rows, kOrderSeed);
    if (batch.y.size(0) > left) {
      batch = {batch.x.narrow(0, 0, left), batch.y.narrow(0, 0, left)};
    }
    left -= batch.y.size(0);
    visit(batch);
  }
}

// Per-example gradients of a batch, layer by layer.
class Trace {
 public:
  Trace(Model& model, const torch::Tensor& x) { outputs_ = model.traced_forward(x, uses_); }

  const torch::Tensor& outputs() const { return outputs_; }
  // Of sum_n L_n, where L_n depends on row n alone: d L_n / d output of each layer.
  std::vector<torch::Tensor> deltas(const torch::Tensor& sum, bool keep) const {
    std::vector<torch::Tensor> outputs;
    for (const LayerUse& use : uses_) outputs.push_back(use.output);
    return torch::autograd::grad({sum}, outputs, {}, keep);
  }
  // Adds sum_n power(d L_n / d theta), given power(d) of each layer.
  void add(const std::vector<torch::Tensor>& powers,
           const std::function<torch::Tensor(const torch::Tensor&)>& power,
           const std::vector<torch::Tensor>& to) const {
    for (std::size_t i = 0; i < uses_.size(); ++i) {
      to[uses_[i].weight].addmm_(powers[i].t(), power(uses_[i].input.detach()));
      to[uses_[i].bias].add_(powers[i].sum(0));
    }
  }

 private:
  std::vector<LayerUse> uses_;
  torch::Tensor outputs_;
};

torch::Tensor squared(const torch::Tensor& x) { return x * x; }
torch::Tensor absolute_value(const torch::Tensor& x) { return x.abs(); }

// outputs: where tasks are known, of each example's own classes alone; others are -infinity.
void add_exact(const Task& task, const Trace& trace, const torch::Tensor& outputs,
               const std::vector<torch::Tensor>& to) {
  for (const FisherTerm& term : task.fisher_terms(outputs)) {
    std::vector<torch::Tensor> powers = trace.deltas(term.value.sum(), true);
    for (torch::Tensor& power : powers) power = squared(power) * term.weight.to(power.device());
    trace.add(powers, squared, to);
  }
}

void add_with_targets(const Task& task, const Trace& trace, const torch::Tensor& targets,
                      const std::vector<torch::Tensor>& to) {
  std::vector<torch::Tensor> powers =
      trace.deltas(task.losses(trace.outputs(), targets).sum(), false);
  for (torch::Tensor& power : powers) power = squared(power);
  trace.add(powers, squared, to);
}

void add_batched(Model& model, const Stream& stream, const Batch& batch,
                 const std::vector<torch::Tensor>& parameters,
                 const std::vector<torch::Tensor>& to) {
  const torch::Tensor loss = stream.task().loss(model.test_forward(batch.x), batch.y);
  const std::vector<torch::Tensor> gradients = torch::autograd::grad({loss}, parameters);
  for (std::size_t i = 0; i < to.size(); ++i) to[i].add_(squared(gradients[i]));
}

}  // namespace

ParameterVector fisher_information(Model& model, const Stream& stream, std::int64_t experience,
                                   const FisherOptions& options, StateRandom& labels) {
  const std::vector<torch::Tensor> parameters = parameters_of(model);
  const Task& task = stream.task();
  ParameterVector fisher;
  fisher.set_zero(parameters);
  const std::vector<torch::Tensor>& to = fisher.views(parameters);
  std::int64_t count = 0;
  const std::int64_t rows = options.kind == FisherKind::batched ? options.batch : kSampleRows;
  for_batches(stream, experience, options.examples, rows, [&](const Batch& batch) {
    if (options.kind == FisherKind::batched) {
      add_batched(model, stream, batch, parameters, to);
      ++count;
      return;
    }
    const Trace trace(model, batch.x);
    const torch::Tensor outputs = task.restrict_to_own(trace.outputs(), batch.y);
    if (options.kind == FisherKind::exact) {
      add_exact(task, trace, outputs, to);
    } else if (options.kind == FisherKind::sample) {
      const auto uniform = [&labels] { return labels.uniform(); };
      add_with_targets(task, trace, task.drawn(outputs.detach(), uniform), to);
    } else {
      add_with_targets(task, trace, batch.y, to);
    }
    count += batch.y.size(0);
  });
  fisher.flat().div_(static_cast<double>(count));
  return fisher;
}

ParameterVector output_sensitivity(Model& model, const Stream& stream, std::int64_t experience,
                                   std::int64_t examples) {
  const std::vector<torch::Tensor> parameters = parameters_of(model);
  ParameterVector sensitivity;
  sensitivity.set_zero(parameters);
  const std::vector<torch::Tensor>& to = sensitivity.views(parameters);
  std::int64_t count = 0;
  for_batches(stream, experience, examples, kSampleRows, [&](const Batch& batch) {
    const Trace trace(model, batch.x);
    torch::Tensor outputs = stream.task().restrict_to_own(trace.outputs(), batch.y);
    if (stream.tasks_known()) outputs = outputs.masked_fill(outputs.detach().isinf(), 0);
    std::vector<torch::Tensor> powers = trace.deltas(squared(outputs).sum(), false);
    for (torch::Tensor& power : powers) power = absolute_value(power);
    trace.add(powers, absolute_value, to);
    count += batch.y.size(0);
  });
  sensitivity.flat().div_(static_cast<double>(count));
  return sensitivity;
}

}  // namespace perennial::continual
