// SPDX-License-Identifier: Apache-2.0
// Adam, AdamW and SGD over named parameters.
#include "model/dense_optimizer.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <optional>

#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"

namespace perennial::continual {

namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8;
// What the names of a router's parameters have.
constexpr const char* kRouter = "router_";

std::string entry(const std::string& parameter, const char* what) {
  return "optimizer/" + parameter + "/" + what;
}

// While it lives, LibTorch's threads take numbers below the smallest normal one as 0. The moments
// of parameters that no example moves any more decay to such numbers, on which a step of Adam took
// several times as long; added to a weight they are nothing. Restores what the calling thread had.
class FlushDenormals {
 public:
  FlushDenormals() : before_(flushes()) { set(true); }
  ~FlushDenormals() { set(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  static bool flushes() {
    const volatile float denormal = 1e-39F;
    return denormal * 1.0F == 0;
  }
  static void set(bool on) {
    at::parallel_for(0, at::get_num_threads(), 1, [on](std::int64_t, std::int64_t) {
      (void)at::globalContext().setFlushDenormal(on);  // false where a processor cannot: slow then
    });
  }

  bool before_;
};

}  // namespace

DenseOptimizer::DenseOptimizer(const TrainOptions& options) : options_(options) {}

void DenseOptimizer::set_parameters(Parameters parameters) {
  parameters_ = std::move(parameters);
  std::map<std::string, Moments> kept;
  for (const auto& [name, tensor] : parameters_) {
    auto found = moments_.extract(name);
    if (found.empty()) continue;
    if (found.mapped().m.sizes() != tensor.sizes() || found.mapped().v.sizes() != tensor.sizes()) {
      throw DataError("the moments of '" + name + "' have another shape than it has");
    }
    found.mapped().m = found.mapped().m.to(tensor.device());
    found.mapped().v = found.mapped().v.to(tensor.device());
    kept.insert(std::move(found));
  }
  moments_ = std::move(kept);
}

void DenseOptimizer::forget_reshaped(const Parameters& parameters) {
  for (const auto& [name, tensor] : parameters) {
    const auto found = moments_.find(name);
    if (found != moments_.end() && found->second.m.sizes() != tensor.sizes()) moments_.erase(found);
  }
}

void DenseOptimizer::forget() { moments_.clear(); }

void DenseOptimizer::zero_grad() {
  for (auto& [name, tensor] : parameters_) tensor.mutable_grad().reset();
}

double DenseOptimizer::squared_norm() const {
  double sum = 0;
  for (const auto& [name, tensor] : parameters_) {
    if (!tensor.grad().defined()) continue;
    const double norm =
        at::linalg_vector_norm(tensor.grad(), 2, {}, false, at::kDouble).item<double>();
    sum += norm * norm;
  }
  return sum;
}

void DenseOptimizer::scale_gradients(double factor) {
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : parameters_) {
    if (tensor.grad().defined()) tensor.mutable_grad().mul_(factor);
  }
}

void DenseOptimizer::step() {
  const at::NoGradGuard no_grad;
  Group routers, others;
  routers.lr = factor_ * options_.router_lr;
  others.lr = factor_ * options_.lr;
  for (const auto& [name, tensor] : parameters_) {
    if (!tensor.grad().defined()) continue;
    const bool router = options_.router_lr > 0 && name.find(kRouter) != std::string::npos;
    Group& group = router ? routers : others;
    group.tensors.push_back(tensor);
    group.gradients.push_back(tensor.grad().contiguous());
    if (options_.optimizer == OptimizerKind::sgd) continue;
    const auto [at, added] = moments_.try_emplace(name);
    Moments& moments = at->second;
    if (added) moments = {at::zeros_like(tensor), at::zeros_like(tensor), 0};
    ++moments.step;
    group.m.push_back(moments.m);
    group.v.push_back(moments.v);
    group.steps.push_back(static_cast<float>(moments.step));
  }
  step_group(others);
  step_group(routers);
}

void DenseOptimizer::step_group(const Group& group) const {
  if (group.tensors.empty()) return;
  if (options_.optimizer == OptimizerKind::sgd) {
    at::_fused_sgd_(group.tensors, group.gradients, {}, /*weight_decay=*/0, /*momentum=*/0,
                    group.lr, /*dampening=*/0, /*nesterov=*/false, /*maximize=*/false,
                    /*is_first_step=*/false);
  } else {
    std::optional<FlushDenormals> flush;
    if (group.tensors.front().is_cpu()) flush.emplace();
    // A device's kernel reads the numbers of the steps itself: they go there in one piece.
    const std::vector<torch::Tensor> numbers =
        at::tensor(group.steps, at::kFloat).to(group.tensors.front().device()).unbind();
    if (options_.optimizer == OptimizerKind::adam) {
      at::_fused_adam_(group.tensors, group.gradients, group.m, group.v, {}, numbers, group.lr,
                       kBeta1, kBeta2, /*weight_decay=*/0, kEps, /*amsgrad=*/false,
                       /*maximize=*/false);
    } else {
      at::_fused_adamw_(group.tensors, group.gradients, group.m, group.v, {}, numbers, group.lr,
                        kBeta1, kBeta2, options_.weight_decay, kEps, /*amsgrad=*/false,
                        /*maximize=*/false);
    }
  }
  for (const auto* written : {&group.tensors, &group.m, &group.v}) {
    for (const torch::Tensor& tensor : *written) count_write(tensor);
  }
}

void DenseOptimizer::add_to_commit(storage::CommitRequest& request) {
  DenseEntries::Offer offer = entries_.offer(request);
  for (const auto& [name, moments] : moments_) {
    offer.tensor(entry(name, "m"), moments.m);
    offer.tensor(entry(name, "v"), moments.v);
    offer.bytes(entry(name, "step"), bytes_from(at::full({}, moments.step, at::kLong)));
  }
}

void DenseOptimizer::load(const storage::PageReader& store) {
  entries_ = DenseEntries();
  moments_.clear();
  const std::string suffix = "/step";
  for (const std::string& entry_name : store.dense_names()) {
    if (!entry_name.starts_with("optimizer/")) continue;
    entries_.stored(entry_name);
    if (!entry_name.ends_with(suffix)) continue;
    const storage::Bytes step = value_or_throw(store.read_dense(entry_name));
    entries_.stored(entry_name, step);
    const std::size_t prefix = std::string("optimizer/").size();
    const std::string name = entry_name.substr(prefix, entry_name.size() - prefix - suffix.size());
    const auto read = [&](const char* what) {
      return tensor_from(value_or_throw(store.read_dense(entry(name, what))), entry(name, what));
    };
    moments_[name] = {read("m"), read("v"), tensor_from(step, entry_name).item<std::int64_t>()};
  }
  for (const auto& [name, moments] : moments_) {
    entries_.stored(entry(name, "m"), moments.m);
    entries_.stored(entry(name, "v"), moments.v);
  }
}

}  // namespace perennial::continual
