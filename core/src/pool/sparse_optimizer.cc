// SPDX-License-Identifier: Apache-2.0
// Sparse steps over the experts that were retrieved.
#include "perennial/core/sparse_optimizer.h"

#include <ATen/Parallel.h>
#include <ATen/ops/add.h>

#include <vector>

#include "pool/pager.h"
#include "pool/pool_device.h"
#include "pool/tape.h"

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

// Experts a thread takes at once: enough that each finds the next one's lines on their way.
constexpr std::int64_t kExpertGrain = 16;

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
    : pool_(pool), options_(options), pin_(std::make_unique<PagePin>()) {
  options_.validate();
  if (pool_.device() != nullptr)
    pool_.device()->fetch();  // the pager knows then what state there is
  pool_.pager().attach_state(
      kernels::update_state_floats(rule_of(options_), pool_.options().layout()));
}

SparseOptimizer::~SparseOptimizer() = default;

kernels::UpdateArgs SparseOptimizer::update_args() const {
  kernels::UpdateArgs args;
  args.rule = rule_of(options_);
  args.layout = pool_.options().layout();
  return args;
}

// Pins weight and state pages of as many experts at a time as fit, and updates those.
void SparseOptimizer::update(kernels::UpdateArgs& args) {
  const struct Release {
    PagePin& pin;
    ~Release() { pin.release(); }
  } release{*pin_};
  Pager& pager = pool_.pager();
  const auto experts = static_cast<std::int64_t>(args.ids.size());
  for (std::int64_t begin = 0; begin < experts;) {
    const auto end = begin + static_cast<std::int64_t>(pager.pin_for_update(
                                 args.ids.subspan(static_cast<std::size_t>(begin)), *pin_));
    args.weights = pager.table(storage::PageKind::weights);
    args.state = pager.table(storage::PageKind::state);
    at::parallel_for(begin, end, kExpertGrain, [&](std::int64_t from, std::int64_t to) {
      thread_local std::vector<float> scratch;
      scratch.resize(static_cast<std::size_t>(args.layout.stride()));
      kernels::update_experts(args, from, to, scratch.data());
    });
    begin = end;
  }
  experts_updated_ += args.ids.size();
  pool_.tape().clear();
}

std::uint64_t SparseOptimizer::experts_updated() const {
  const std::int64_t on_device = on_device_.defined() ? on_device_.item<std::int64_t>() : 0;
  return experts_updated_ + static_cast<std::uint64_t>(on_device);
}

void SparseOptimizer::count(const at::Tensor& experts) {
  on_device_ = on_device_.defined() ? on_device_.to(experts.device()) + experts : experts;
}

void SparseOptimizer::step() {
  const std::optional<std::uint32_t> open = pool_.open_generation();
  if (!open) {
    pool_.clear_gradients();
    return;
  }
  if (pool_.device() != nullptr) {
    count(pool_.device()->step(rule_of(options_)));
    return;
  }
  if (!pool_.tape().empty()) pool_.experts_changed();
  const ExpertUses uses = pool_.tape().uses(pool_.generation(*open));
  kernels::UpdateArgs args = update_args();
  args.ids = uses.ids;
  args.offsets = uses.offsets;
  args.uses = uses.uses;
  args.contributions = uses.contributions;
  update(args);
}

void SparseOptimizer::step(const CompactGradient& gradient) {
  const std::int64_t used = pool_.options().layout().used();
  const at::Tensor ids = gradient.ids.cpu().contiguous();
  const bool on_device = pool_.device() != nullptr;
  const at::Tensor values = (on_device ? gradient.values : gradient.values.cpu()).contiguous();
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
  if (on_device) {
    count(pool_.device()->step(rule_of(options_), {gradient.ids, values}));
    return;
  }
  if (!list.empty()) pool_.experts_changed();
  kernels::UpdateArgs args = update_args();
  args.ids = list;
  args.rows = values.const_data_ptr<float>();
  update(args);
}

}  // namespace perennial
