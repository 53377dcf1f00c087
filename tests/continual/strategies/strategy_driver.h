// SPDX-License-Identifier: Apache-2.0
// Calls a strategy's hooks by hand, around steps of plain gradient descent, and reads its state.
#pragma once

#include <ATen/core/grad_mode.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "continual/run/trainer_testing.h"
#include "model/parameter_vector.h"
#include "perennial/continual/strategy.h"

namespace perennial::continual {

// The state that a strategy shows, by name.
class StateMap : public StateVisitor {
 public:
  explicit StateMap(Strategy& strategy) { strategy.visit_state(*this); }
  void tensor(const std::string& name, torch::Tensor& value) override { tensors[name] = value; }
  void integer(const std::string& name, std::int64_t& value) override { integers[name] = value; }
  std::map<std::string, torch::Tensor> tensors;
  std::map<std::string, std::int64_t> integers;
};

// A small MLP on the split stream of two experiences unless the case changes that.
inline RunConfig mlp_config(StrategySet strategy,
                            const std::function<void(RunConfig&)>& change = {}) {
  RunConfig config = small_config({"", [](RunConfig&) {}});
  config.model.model = ModelKind::mlp;
  config.model.hidden = 7;
  config.model.depth = 2;
  config.stream.stream = StreamKind::split;
  config.stream.experiences = 2;
  config.train.strategy = std::move(strategy);
  config.train.strategy_options.set("memory", 24);
  config.train.strategy_options.set("task_memory", 8);
  config.train.strategy_options.set("gdumb_epochs", 5);
  if (change) change(config);
  config.validate();
  return config;
}

struct Driver {
  RunConfig config;
  Stream stream;
  std::unique_ptr<Strategy> strategy;
  std::unique_ptr<Model> model;

  explicit Driver(RunConfig run_config)
      : config(std::move(run_config)),
        stream(make_stream(config)),
        strategy(make_strategy(config,
                               {stream.classes(), stream.experiences(), stream.preprocessing()})),
        model(make_model(config, stream.features(), stream.classes(), nullptr, 0)) {}

  StrategyContext context(std::int64_t experience, std::int64_t epoch = 0) {
    return {*model,
            stream,
            config,
            experience,
            epoch,
            0,
            [](std::string_view, const boost::json::object&) {},
            [] {}};
  }
  std::vector<torch::Tensor> parameters() { return parameters_of(*model); }
  torch::Tensor values() {
    ParameterVector vector;
    vector.set_values(parameters());
    return vector.flat();
  }
  torch::Tensor gradients() {
    ParameterVector vector;
    vector.set_gradients(parameters());
    return vector.flat();
  }
  void set_values(const torch::Tensor& values) {
    const at::NoGradGuard no_grad;
    std::int64_t begin = 0;
    for (torch::Tensor& parameter : parameters()) {
      parameter.copy_(values.narrow(0, begin, parameter.numel()).view(parameter.sizes()));
      begin += parameter.numel();
    }
  }
  void zero_gradients() {
    for (torch::Tensor& parameter : parameters()) {
      parameter.mutable_grad() = torch::zeros_like(parameter);
    }
  }

  // One step; returns the gradient of the loss before after_backward.
  torch::Tensor step(std::int64_t experience, std::int64_t number, double lr = 0.1) {
    StrategyContext now = context(experience);
    const Batch batch = stream.train_batch(experience, 0, number, config.train.batch, 1);
    TrainingBatch rows{batch.x, batch.y, batch.y.size(0)};
    strategy->before_step(now, rows);
    torch::Tensor gradient;
    if (rows.train) {
      zero_gradients();
      rows.outputs = model->train_forward(rows.x);
      step_loss(*strategy, now, rows).backward();
      gradient = gradients();
      strategy->after_backward(now, rows);
      const at::NoGradGuard no_grad;
      for (torch::Tensor& parameter : parameters()) parameter.sub_(parameter.grad(), lr);
      strategy->after_step(now, rows);
    }
    return gradient;
  }
};

}  // namespace perennial::continual
