// SPDX-License-Identifier: Apache-2.0
// Gradient episodic memory.
#include <ATen/ops/stack.h>

#include "strategies/gem_projection.h"
#include "strategies/task_memory.h"

namespace perennial::continual {

namespace {

constexpr StrategyOption<double> kGemMargin{
    "gem_margin", 0.5, "gem: gamma, added to the dual solution", Range{0, 1e3}};

// Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory for Continual Learning" (arXiv 1706.08840),
// algorithm 1: each step takes the vector nearest to its gradient g whose product with the gradient
// g_k on the memory of each earlier experience k is not negative (eq. 8), by the dual program (eq.
// 11), solved exactly (gem_projection.h). Defaults: m = 256 newest examples of each experience,
// gamma .5 (the paper's). A step computes the gradients of k m examples more, so its cost grows
// with the experiences by design; the cost of a gradient does not, beyond O(k P) for the products.
// Naive, bit for bit, at m = 0.
class Gem : public TaskMemory {
 public:
  Gem(const RunConfig& config, const StreamShape& shape)
      : TaskMemory("gem", config, shape), margin_(config.train.strategy_options[kGemMargin]) {}

  void after_backward(StrategyContext& context, const TrainingBatch&) override {
    std::vector<torch::Tensor> memory;
    for (std::int64_t e = 0; e < context.experience; ++e) {
      std::vector<std::int64_t> slots;
      for (std::int64_t i = 0; i < held(e); ++i) slots.push_back(slot(e, i));
      if (!slots.empty()) memory.push_back(gradient_of(context, take(context, slots)));
    }
    if (memory.empty()) return;
    const torch::Tensor own = gradient(context);
    const torch::Tensor projected = gem_projection(own, at::stack(memory), margin_);
    if (!projected.is_same(own)) set_gradient(context, projected);
  }

 private:
  double margin_;
};

}  // namespace

const StrategyDeclaration& strategies::gem() {
  static const StrategyDeclaration declaration{
      .name = "gem",
      .description =
          "gradient episodic memory: the same for each experience's memory, by a quadratic program",
      .options = {&kTaskMemory, &kGemMargin},
      .needs = TaskMemory::kNeeds,
      .make = make_one<Gem>,
  };
  return declaration;
}

}  // namespace perennial::continual
