// SPDX-License-Identifier: Apache-2.0
// Sparse steps over the experts that were retrieved.
#include "perennial/core/sparse_optimizer.h"

#include <ATen/ops/add.h>

#include <vector>

#include "pool/expert_place.h"
#include "pool/pager.h"

namespace perennial {

namespace kernels {
EnumNames<UpdateAlgorithm> enum_names(UpdateAlgorithm) {
  return {{UpdateAlgorithm::sgd, "sgd"},
          {UpdateAlgorithm::adam, "adam"},
          {UpdateAlgorithm::adamw, "adamw"},
          {UpdateAlgorithm::rowwise_adagrad, "rowwise_adagrad"}};
}
}  // namespace kernels

namespace {

kernels::UpdateRule rule_of(const SparseOptimizerOptions& options) {
  return {.algorithm = options.algorithm,
          .lr = options.lr,
          .momentum = options.momentum,
          .nesterov = options.nesterov,
          .beta1 = options.beta1,
          .beta2 = options.beta2,
          .eps = options.eps,
          .weight_decay = options.weight_decay};
}

// Ids ascend by row, then column.
std::uint64_t ordinal(std::int64_t id) { return static_cast<std::uint64_t>(id); }

}  // namespace

void SparseOptimizerOptions::validate() const {
  validate_ranges(*this);
  if (momentum > 0 && algorithm != SparseAlgorithm::sgd) {
    std::string message = "momentum is " + std::to_string(momentum) + ", but algorithm is ";
    message.append(enum_name(algorithm)).append("; only sgd has momentum");
    throw InvalidOptions(message);
  }
  if (nesterov && momentum == 0) throw InvalidOptions("nesterov needs a momentum above 0");
}

SparseOptimizer::SparseOptimizer(Pool& pool, const SparseOptimizerOptions& options)
    : pool_(pool), options_(options) {
  options_.validate();
  pool_.where().fetch();  // the pager knows then what state there is
  pool_.pager().attach_state(
      kernels::update_state_floats(rule_of(options_), pool_.options().layout()));
}

std::uint64_t SparseOptimizer::experts_updated() const {
  return updated_.defined() ? static_cast<std::uint64_t>(updated_.item<std::int64_t>()) : 0;
}

void SparseOptimizer::count(const at::Tensor& experts) {
  updated_ = updated_.defined() ? updated_.to(experts.device()) + experts : experts;
}

void SparseOptimizer::step() {
  const std::optional<std::uint32_t> open = pool_.open_generation();
  if (!open) {
    pool_.clear_gradients();
    return;
  }
  count(pool_.where().step(rule_of(options_)));
}

void SparseOptimizer::step(const CompactGradient& gradient) {
  const std::int64_t used = pool_.options().layout().used();
  const at::Tensor ids = gradient.ids.cpu().contiguous();
  const at::Tensor& values = gradient.values;
  if (ids.dim() != 1 || values.dim() != 2 || values.size(0) != ids.size(0) ||
      values.size(1) != used) {
    throw Error("a compact gradient has ids (U) and values (U, " + std::to_string(used) + ")");
  }
  const std::span<const std::int64_t> list(ids.const_data_ptr<std::int64_t>(),
                                           static_cast<std::size_t>(ids.numel()));
  const std::optional<std::uint32_t> open = pool_.open_generation();
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!open || !pool_.exists(list[i]) ||
        kernels::row_of(list[i]) < pool_.generation(*open).first_row ||
        (i > 0 && ordinal(list[i]) <= ordinal(list[i - 1]))) {
      throw Error("expert " + std::to_string(list[i]) +
                  " is not in the open generation, or ids do not ascend");
    }
  }
  count(pool_.where().step(rule_of(options_), gradient));
}

}  // namespace perennial
