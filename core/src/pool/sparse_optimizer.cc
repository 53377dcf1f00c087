// SPDX-License-Identifier: Apache-2.0
// Sparse steps over the experts that were retrieved.
#include "perennial/core/sparse_optimizer.h"

#include <ATen/Parallel.h>

#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "perennial/kernels/optimizer.h"
#include "pool/master_weights.h"
#include "pool/pager.h"
#include "pool/tape.h"

namespace perennial {

EnumNames<SparseAlgorithm> enum_names(SparseAlgorithm) {
  return {{SparseAlgorithm::sgd, "sgd"}, {SparseAlgorithm::adam, "adam"}};
}

namespace {

// State record: Adam's m (stride) and v (stride), then the step count in the first of 16 floats,
// then the master of bf16 weights (stride). SGD on fp32 weights has none.
constexpr std::int64_t kCounterFloats = 16;

std::int64_t moment_floats(SparseAlgorithm algorithm, const kernels::ExpertLayout& layout) {
  return algorithm == SparseAlgorithm::adam ? 2 * layout.stride() : 0;
}

std::int64_t state_floats(SparseAlgorithm algorithm, const kernels::ExpertLayout& layout) {
  const std::int64_t floats = moment_floats(algorithm, layout) + master_floats(layout);
  return floats == 0 ? 0 : floats + kCounterFloats;
}

// Calls work(i) for ids [0, n), pinning weight and state pages of as many at a time as fit.
void for_each_pinned(Pager& pager, std::span<const std::int64_t> ids,
                     const std::function<void(std::size_t)>& work) {
  PagePin pin;
  for (std::size_t begin = 0; begin < ids.size();) {
    const std::size_t count = pager.pin_for_update(ids.subspan(begin), pin);
    at::parallel_for(0, static_cast<std::int64_t>(count), 16, [&](auto from, auto to) {
      for (std::int64_t i = from; i < to; ++i) work(begin + static_cast<std::size_t>(i));
    });
    begin += count;
  }
}

}  // namespace

SparseOptimizer::SparseOptimizer(Pool& pool, const SparseOptimizerOptions& options)
    : pool_(pool), options_(options) {
  validate_ranges(options_);
  pool_.pager().attach_state(state_floats(options_.algorithm, pool_.options().layout()));
}

void SparseOptimizer::update(std::int64_t id, const float* gradient) {
  Pager& pager = pool_.pager();
  const kernels::ExpertLayout layout = pool_.options().layout();
  const std::int64_t n = layout.stride();
  float* const record = pager.table(storage::PageKind::weights).record(id);
  const kernels::SgdRule sgd{options_.lr, options_.weight_decay};
  if (pager.state_floats() == 0) {
    kernels::sgd_update(sgd, n, gradient, record);
    return;
  }
  float* const state = pager.table(storage::PageKind::state).record(id);
  float* const counter = state + moment_floats(options_.algorithm, layout);
  std::uint32_t step = 0;
  std::memcpy(&step, counter, sizeof(step));
  float* const weights = weights_to_update(layout, record, counter + kCounterFloats, step);
  if (step != std::numeric_limits<std::uint32_t>::max()) ++step;
  if (options_.algorithm == SparseAlgorithm::sgd) {
    kernels::sgd_update(sgd, n, gradient, weights);
  } else {
    kernels::adam_update(
        {options_.lr, options_.beta1, options_.beta2, options_.eps, options_.weight_decay}, step, n,
        gradient, weights, state, state + n);
  }
  store_updated(layout, weights, record);
  std::memcpy(counter, &step, sizeof(step));
}

void SparseOptimizer::step() {
  const std::optional<std::uint32_t> open = pool_.open_generation();
  if (!open) {
    pool_.tape().clear();
    return;
  }
  const Generation& generation = pool_.generation(*open);
  const ExpertUses uses = pool_.tape().uses(generation.first_row, generation.rows);
  const kernels::ExpertLayout layout = pool_.options().layout();
  for_each_pinned(pool_.pager(), uses.ids, [&](std::size_t i) {
    thread_local std::vector<float> gradient;
    gradient.resize(static_cast<std::size_t>(layout.stride()));
    kernels::expert_gradient(layout, uses.contributions, uses.of(i), gradient.data());
    update(uses.ids[i], gradient.data());
  });
  experts_updated_ += uses.ids.size();
  pool_.tape().clear();
}

void SparseOptimizer::step(const CompactGradient& gradient) {
  const kernels::ExpertLayout layout = pool_.options().layout();
  const at::Tensor ids = gradient.ids.contiguous();
  const at::Tensor values = gradient.values.contiguous();
  if (ids.dim() != 1 || values.dim() != 2 || values.size(0) != ids.size(0) ||
      values.size(1) != layout.used()) {
    throw Error("a compact gradient has ids (U) and values (U, " + std::to_string(layout.used()) +
                ")");
  }
  const std::span<const std::int64_t> list(ids.const_data_ptr<std::int64_t>(),
                                           static_cast<std::size_t>(ids.numel()));
  const std::optional<std::uint32_t> open = pool_.open_generation();
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!open || !pool_.exists(list[i]) ||
        kernels::row_of(list[i]) < pool_.generation(*open).first_row ||
        (i > 0 && list[i] <= list[i - 1])) {
      throw Error("expert " + std::to_string(list[i]) +
                  " is not in the open generation, or ids do not ascend");
    }
  }
  const float* rows = values.const_data_ptr<float>();
  for_each_pinned(pool_.pager(), list, [&](std::size_t i) {
    thread_local std::vector<float> padded;
    padded.assign(static_cast<std::size_t>(layout.stride()), 0.0F);
    std::memcpy(padded.data(), rows + static_cast<std::int64_t>(i) * layout.used(),
                static_cast<std::size_t>(layout.used()) * sizeof(float));
    update(list[i], padded.data());
  });
  experts_updated_ += list.size();
  pool_.tape().clear();
}

}  // namespace perennial
