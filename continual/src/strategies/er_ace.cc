// SPDX-License-Identifier: Apache-2.0
// Experience replay with asymmetric cross entropy.
#include <ATen/ops/zeros.h>

#include <limits>

#include "strategies/replay.h"

namespace perennial::continual {

namespace {

// Caccia et al. 2022, "New Insights on Reducing Abrupt Representation Change in Online Continual
// Learning" (arXiv 2104.05025), eq. 4: L = L_ce(fresh rows; over the classes among them) +
// L_ce(replayed rows; over all classes), so that new classes do not push old ones down. The
// replayed rows are what new and old classes compete in, so they come from the whole memory.
// Defaults as er. A step with nothing to replay is plain cross entropy: naive, bit for bit, at M =
// 0.
class ErAce : public Replay {
 public:
  ErAce(const RunConfig& config, const StreamShape& shape)
      : Replay("er_ace", config, shape, From::all, false, 1) {}

  torch::Tensor target_loss(StrategyContext& context, const TrainingBatch& batch) override {
    if (replayed().empty()) return {};
    const Sample& sample = replayed()[0];
    torch::Tensor absent = at::zeros({batch.outputs.size(1)}).to(at::kBool).logical_not_();
    absent.index_fill_(0, batch.fresh_y(), false);
    const torch::Tensor own = batch.fresh_outputs().masked_fill(
        absent, static_cast<double>(std::numeric_limits<float>::lowest()));
    const Task& task = context.stream.task();
    return task.loss(own, batch.fresh_y()) +
           task.loss(batch.outputs.narrow(0, sample.begin, sample.count()), sample.examples.y);
  }
};

}  // namespace

const StrategyDeclaration& strategies::er_ace() {
  static const StrategyDeclaration declaration{
      .name = "er_ace",
      .sort = StrategySort::replay,
      .description =
          "replay with an asymmetric cross entropy: new examples compete among their own classes",
      .options = Replay::options({}),
      .needs = {.classes = "lets fresh examples compete among their own classes"},
      .own_loss = true,
      .all_outputs = true,
      .make = make_one<ErAce>,
  };
  return declaration;
}

}  // namespace perennial::continual
