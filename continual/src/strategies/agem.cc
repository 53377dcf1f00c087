// SPDX-License-Identifier: Apache-2.0
// Averaged gradient episodic memory.
#include "strategies/gem_projection.h"
#include "strategies/task_memory.h"

namespace perennial::continual {

namespace {

// Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM" (arXiv 1812.00420), eq. 11: with r
// the gradient on a sample of the memory of all earlier experiences, g - (g.r / r.r) r where
// g.r < 0, else g. Defaults: m = 256 newest examples of each experience, and as many sampled as the
// batch has (the paper: m = 250, 256 sampled). Naive, bit for bit, at m = 0.
class AveragedGem : public TaskMemory {
 public:
  AveragedGem(const RunConfig& config, const StreamShape& shape)
      : TaskMemory("agem", config, shape),
        count_(config.train.strategy_options[kReplayBatch] > 0
                   ? config.train.strategy_options[kReplayBatch]
                   : config.train.batch),
        drawing_(config.train.strategy_options[kStrategySeed], LaneUse::replay_draw) {}

  void after_backward(StrategyContext& context, const TrainingBatch&) override {
    const std::int64_t before = held_before(context.experience);
    if (before == 0) return;
    std::vector<std::int64_t> slots = drawing_.sample(before, count_);
    for (std::int64_t& chosen : slots) {
      std::int64_t e = 0;
      for (; chosen >= held(e); ++e) chosen -= held(e);
      chosen = slot(e, chosen);
    }
    const torch::Tensor own = gradient(context);
    const torch::Tensor projected =
        agem_projection(own, gradient_of(context, take(context, slots)));
    if (!projected.is_same(own)) set_gradient(context, projected);
  }

  void visit_state(StateVisitor& visitor) override {
    TaskMemory::visit_state(visitor);
    drawing_.visit(visitor, "agem/drawn");
  }

 private:
  std::int64_t count_;
  StateRandom drawing_;
};

}  // namespace

const StrategyDeclaration& strategies::agem() {
  static const StrategyDeclaration declaration{
      .name = "agem",
      .description =
          "averaged gradient episodic memory: projects gradients that would raise the memory's "
          "loss",
      .options = {&kTaskMemory, &kReplayBatch, &kStrategySeed},
      .needs = TaskMemory::kNeeds,
      .make = make_one<AveragedGem>,
  };
  return declaration;
}

}  // namespace perennial::continual
