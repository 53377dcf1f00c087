// SPDX-License-Identifier: Apache-2.0
// Adam and SGD over named parameters.
#include "dense_optimizer.h"

#include <ATen/ops/full.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>

#include <algorithm>

#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"

namespace perennial::continual {

namespace {

using torch::optim::AdamParamState;

std::string entry(const std::string& parameter, const char* what) {
  return "optimizer/" + parameter + "/" + what;
}

}  // namespace

DenseOptimizer::DenseOptimizer(const TrainOptions& options) : options_(options) {}
DenseOptimizer::~DenseOptimizer() = default;

void DenseOptimizer::set_parameters(Parameters parameters) {
  parameters_ = std::move(parameters);
  std::unique_ptr<torch::optim::Optimizer> next;
  std::vector<torch::Tensor> tensors;
  for (const auto& [name, tensor] : parameters_) tensors.push_back(tensor);
  if (options_.optimizer == OptimizerKind::adam) {
    next = std::make_unique<torch::optim::Adam>(tensors, torch::optim::AdamOptions(options_.lr));
  } else {
    next = std::make_unique<torch::optim::SGD>(tensors, torch::optim::SGDOptions(options_.lr));
  }
  for (const auto& [name, tensor] : parameters_) {
    std::unique_ptr<torch::optim::OptimizerParamState> state;
    if (const auto loaded = loaded_.find(name); loaded != loaded_.end()) {
      if (loaded->second.m.sizes() != tensor.sizes() ||
          loaded->second.v.sizes() != tensor.sizes()) {
        throw DataError("the store's moments of '" + name + "' have another shape than it has");
      }
      auto moments = std::make_unique<AdamParamState>();
      moments->exp_avg(loaded->second.m);
      moments->exp_avg_sq(loaded->second.v);
      moments->step(loaded->second.step);
      state = std::move(moments);
    } else if (optimizer_ != nullptr) {
      const auto found = optimizer_->state().find(tensor.unsafeGetTensorImpl());
      if (found != optimizer_->state().end()) state = std::move(found->second);
    }
    if (state != nullptr) next->state()[tensor.unsafeGetTensorImpl()] = std::move(state);
  }
  loaded_.clear();
  optimizer_ = std::move(next);
}

void DenseOptimizer::set_lr(double lr) {
  for (auto& group : optimizer_->param_groups()) group.options().set_lr(lr);
}

void DenseOptimizer::zero_grad() { optimizer_->zero_grad(); }
void DenseOptimizer::step() { optimizer_->step(); }

// The parameters that have moments, with them.
std::vector<DenseOptimizer::Moments> DenseOptimizer::moments() const {
  std::vector<Moments> all;
  if (options_.optimizer != OptimizerKind::adam) return all;
  for (const auto& [name, tensor] : parameters_) {
    const auto found = optimizer_->state().find(tensor.unsafeGetTensorImpl());
    if (found == optimizer_->state().end()) continue;
    const auto& state = static_cast<const AdamParamState&>(*found->second);
    all.push_back({name, state.exp_avg(), state.exp_avg_sq(), state.step()});
  }
  return all;
}

std::vector<std::string> DenseOptimizer::entries() const {
  std::vector<std::string> names;
  for (const Moments& item : moments()) {
    for (const char* what : {"m", "v", "step"}) names.push_back(entry(item.name, what));
  }
  return names;
}

void DenseOptimizer::add_to_commit(storage::CommitRequest& request) {
  for (const Moments& item : moments()) {
    request.dense[entry(item.name, "m")] = bytes_from(item.m);
    request.dense[entry(item.name, "v")] = bytes_from(item.v);
    request.dense[entry(item.name, "step")] = bytes_from(at::full({}, item.step, at::kLong));
  }
  for (const std::string& name : stored_) {
    if (!request.dense.contains(name)) request.removed_dense.push_back(name);
  }
  offered_ = entries();
}

void DenseOptimizer::committed() { stored_ = offered_; }

void DenseOptimizer::load(const storage::PageReader& store) {
  stored_.clear();
  loaded_.clear();
  const std::string suffix = "/step";
  for (const std::string& entry_name : store.dense_names()) {
    if (!entry_name.starts_with("optimizer/")) continue;
    stored_.push_back(entry_name);
    if (!entry_name.ends_with(suffix)) continue;
    const std::size_t prefix = std::string("optimizer/").size();
    const std::string name = entry_name.substr(prefix, entry_name.size() - prefix - suffix.size());
    const auto read = [&](const char* what) {
      return tensor_from(value_or_throw(store.read_dense(entry(name, what))), entry(name, what));
    };
    loaded_[name] = {name, read("m"), read("v"), read("step").item<std::int64_t>()};
  }
}

}  // namespace perennial::continual
