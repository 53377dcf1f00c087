// SPDX-License-Identifier: Apache-2.0
// Fisher information and output sensitivity.
#include "strategies/importance.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <functional>

#include "perennial/core/error.h"

namespace perennial::continual {

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
  Trace(Model& model, const torch::Tensor& x) { logits_ = model.traced_forward(x, uses_); }

  const torch::Tensor& logits() const { return logits_; }
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
  torch::Tensor logits_;
};

torch::Tensor squared(const torch::Tensor& x) { return x * x; }
torch::Tensor absolute_value(const torch::Tensor& x) { return x.abs(); }

// A class for each row, drawn from its probabilities.
torch::Tensor drawn(const torch::Tensor& probabilities, StateRandom& random) {
  const torch::Tensor p = probabilities.contiguous();
  const std::int64_t classes = p.size(1);
  torch::Tensor labels = at::empty({p.size(0)}, at::kLong);
  for (std::int64_t row = 0; row < p.size(0); ++row) {
    const float* of = p.const_data_ptr<float>() + row * classes;
    double left = random.uniform();
    std::int64_t label = 0;
    while (label + 1 < classes && (left -= static_cast<double>(of[label])) >= 0) ++label;
    // Rounding may leave a rest for classes that cannot be.
    while (label > 0 && of[label] == 0) --label;
    labels.mutable_data_ptr<std::int64_t>()[row] = label;
  }
  return labels;
}

// logits: where tasks are known, of each example's own classes alone; others are -infinity.
void add_exact(const Trace& trace, const torch::Tensor& logits,
               const std::vector<torch::Tensor>& to) {
  const torch::Tensor log_p = logits.log_softmax(1);
  const torch::Tensor p = log_p.detach().exp();
  for (std::int64_t c = 0; c < log_p.size(1); ++c) {
    torch::Tensor of_class = log_p.select(1, c);
    const torch::Tensor foreign = of_class.detach().isinf();
    if (foreign.all().item<bool>()) continue;
    if (foreign.any().item<bool>()) of_class = of_class.masked_fill(foreign, 0);
    std::vector<torch::Tensor> powers = trace.deltas(of_class.sum(), true);
    for (torch::Tensor& power : powers) {
      power = squared(power) * p.narrow(1, c, 1).to(power.device());
    }
    trace.add(powers, squared, to);
  }
}

void add_labelled(const Trace& trace, const torch::Tensor& logits, const torch::Tensor& labels,
                  const std::vector<torch::Tensor>& to) {
  const torch::Tensor sum = at::cross_entropy_loss(logits, labels, {}, at::Reduction::Sum);
  std::vector<torch::Tensor> powers = trace.deltas(sum, false);
  for (torch::Tensor& power : powers) power = squared(power);
  trace.add(powers, squared, to);
}

void add_batched(Model& model, const Stream& stream, const Batch& batch,
                 const std::vector<torch::Tensor>& parameters,
                 const std::vector<torch::Tensor>& to) {
  const torch::Tensor loss =
      at::cross_entropy_loss(stream.restrict_to_own(model.test_forward(batch.x), batch.y), batch.y);
  const std::vector<torch::Tensor> gradients = torch::autograd::grad({loss}, parameters);
  for (std::size_t i = 0; i < to.size(); ++i) to[i].add_(squared(gradients[i]));
}

}  // namespace

ParameterVector fisher_information(Model& model, const Stream& stream, std::int64_t experience,
                                   const FisherOptions& options, StateRandom& labels) {
  const std::vector<torch::Tensor> parameters = parameters_of(model);
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
    const torch::Tensor logits = stream.restrict_to_own(trace.logits(), batch.y);
    if (options.kind == FisherKind::exact) {
      add_exact(trace, logits, to);
    } else if (options.kind == FisherKind::sample) {
      add_labelled(trace, logits, drawn(logits.detach().softmax(1), labels), to);
    } else {
      add_labelled(trace, logits, batch.y, to);
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
    torch::Tensor logits = stream.restrict_to_own(trace.logits(), batch.y);
    if (stream.tasks_known()) logits = logits.masked_fill(logits.detach().isinf(), 0);
    std::vector<torch::Tensor> powers = trace.deltas(squared(logits).sum(), false);
    for (torch::Tensor& power : powers) power = absolute_value(power);
    trace.add(powers, absolute_value, to);
    count += batch.y.size(0);
  });
  sensitivity.flat().div_(static_cast<double>(count));
  return sensitivity;
}

}  // namespace perennial::continual
