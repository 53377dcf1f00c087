// SPDX-License-Identifier: Apache-2.0
// Flat vectors over the dense parameters.
#include "model/parameter_vector.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "perennial/core/error.h"

namespace perennial::continual {

std::vector<torch::Tensor> parameters_of(Model& model) {
  std::vector<torch::Tensor> parameters;
  for (auto& [name, tensor] : model.trainable()) parameters.push_back(tensor);
  return parameters;
}

void ParameterVector::reset() {
  flat_ = torch::Tensor();
  views_.clear();
}

void ParameterVector::set_zero(const std::vector<torch::Tensor>& parameters) {
  std::int64_t count = 0;
  for (const torch::Tensor& parameter : parameters) count += parameter.numel();
  flat_ = at::zeros({count}, parameters.empty() ? at::TensorOptions() : parameters[0].options());
  views_.clear();
}

void ParameterVector::set_values(const std::vector<torch::Tensor>& parameters) {
  const at::NoGradGuard no_grad;
  set_zero(parameters);
  const std::vector<torch::Tensor>& to = views(parameters);
  for (std::size_t i = 0; i < parameters.size(); ++i) to[i].copy_(parameters[i]);
}

void ParameterVector::set_gradients(const std::vector<torch::Tensor>& parameters) {
  const at::NoGradGuard no_grad;
  set_zero(parameters);
  const std::vector<torch::Tensor>& to = views(parameters);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].grad().defined()) to[i].copy_(parameters[i].grad());
  }
}

const std::vector<torch::Tensor>& ParameterVector::views(
    const std::vector<torch::Tensor>& parameters) {
  if (!views_.empty()) return views_;
  std::int64_t count = 0;
  for (const torch::Tensor& parameter : parameters) count += parameter.numel();
  if (!flat_.defined() || flat_.dim() != 1 || flat_.numel() != count ||
      flat_.scalar_type() != at::kFloat) {
    throw DataError("the strategy's state is not " + std::to_string(count) +
                    " numbers, one for each dense parameter");
  }
  std::int64_t begin = 0;
  for (const torch::Tensor& parameter : parameters) {
    views_.push_back(flat_.narrow(0, begin, parameter.numel()).view(parameter.sizes()));
    begin += parameter.numel();
  }
  return views_;
}

void ParameterVector::visit(StateVisitor& visitor, const std::string& name) {
  const torch::Tensor before = flat_;
  visitor.beside_parameters(name, flat_);
  if (!flat_.is_same(before)) views_.clear();
}

ParameterSwap::ParameterSwap(const std::vector<torch::Tensor>& parameters, ParameterVector& values)
    : parameters_(parameters) {
  const std::vector<torch::Tensor>& from = values.views(parameters);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    own_.push_back(parameters_[i].detach());
    parameters_[i].set_data(from[i]);
  }
}

ParameterSwap::~ParameterSwap() {
  for (std::size_t i = 0; i < parameters_.size(); ++i) parameters_[i].set_data(own_[i]);
}

torch::Tensor outputs_with(ParameterVector& values, Model& model, const torch::Tensor& x) {
  const at::NoGradGuard no_grad;
  const ParameterSwap swap(parameters_of(model), values);
  return model.test_forward(x);
}

}  // namespace perennial::continual
