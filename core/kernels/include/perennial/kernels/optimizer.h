// SPDX-License-Identifier: Apache-2.0
// Update rules of the sparse optimizer over paged experts. Symbols: U experts of a step.
// Formulas and names are those of torch.optim where it has the rule. Everything is elementwise in
// fp32 by fused multiply-adds and exactly rounded operations, so the bits depend on neither the
// threads, nor the page size, nor the instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "perennial/kernels/expert_id.h"
#include "perennial/kernels/experts.h"
#include "perennial/kernels/update_rule.h"

namespace perennial::kernels {

// Floats of state an expert has: what the rule keeps of the expert's size (b; m, then v; nothing
// for rowwise_adagrad), each (stride), then 16 floats whose first is t (uint32) and whose next
// three are the sums of u, v and w, then the fp32 master of bf16 weights (stride): what the rule
// changes, and the record then rounds (ties to even); the promoted weight before the first update.
// 0 for sgd without momentum on fp32 weights.
std::int64_t update_state_floats(const UpdateRule& rule, const ExpertLayout& layout);

// The experts of a step with their gradients: rows that the caller has, or the uses whose sums they
// are (see expert_gradient); the same bits for the same gradients.
struct UpdateArgs {
  UpdateRule rule;
  ExpertLayout layout;
  FrameTable weights, state;             // must hold the experts worked on; no state: not read
  std::span<const std::int64_t> ids;     // (U), each expert once; ascending is fastest
  const float* rows = nullptr;           // (U, used), or null: then
  std::span<const std::size_t> offsets;  // (U + 1), into uses
  std::span<const Use> uses;             // by expert
  std::span<const Contribution> contributions;
};

// Updates experts [begin, end) of ids: weights, state and t, which stays at its largest value.
// Thread-safe for disjoint ranges. `scratch`: (stride), overwritten.
// Cost: reads and writes each expert's weights and state once; the lines of the next expert are on
// their way to the cache while this one is computed.
void update_experts(const UpdateArgs& args, std::int64_t begin, std::int64_t end, float* scratch);

}  // namespace perennial::kernels
