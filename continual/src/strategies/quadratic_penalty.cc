// SPDX-License-Identifier: Apache-2.0
// The gradient of a quadratic penalty.
#include "strategies/quadratic_penalty.h"

#include <ATen/core/grad_mode.h>

namespace perennial::continual {

void QuadraticPenalty::after_backward(StrategyContext& context, const TrainingBatch&) {
  if (!on() || !importance_.defined()) return;
  const at::NoGradGuard no_grad;
  const std::vector<torch::Tensor> parameters = parameters_of(context.model);
  const std::vector<torch::Tensor>& importance = importance_.views(parameters);
  const std::vector<torch::Tensor>& anchor = anchor_.views(parameters);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    parameters[i].mutable_grad().addcmul_(importance[i], parameters[i] - anchor[i], weight_);
  }
}

void QuadraticPenalty::visit_state(StateVisitor& visitor) {
  importance_.visit(visitor, name_ + "/importance");
  anchor_.visit(visitor, name_ + "/anchor");
}

}  // namespace perennial::continual
