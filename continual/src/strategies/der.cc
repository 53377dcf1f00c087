// SPDX-License-Identifier: Apache-2.0
// Dark experience replay, with and without labels.
#include <ATen/ops/mse_loss.h>

#include "strategies/replay.h"

namespace perennial::continual {

namespace {

constexpr StrategyOption<double> kDerBeta{
    "der_beta", 0.5, "der++: weight of the replayed labels' cross entropy", Range{0, 1e6}};

// Buzzega et al. 2020, "Dark Experience for General Continual Learning" (arXiv 2004.07211), eq. 5
// (der) and 6 (der++): L = L_task(fresh rows) + alpha mean (z - h(x'))^2 [+ beta L_ce(x'', y'')]
// where x', z and x'', y'' are two samples of the memory and z the outputs that x' had when it was
// stored (FillKind), of earlier experiences once there are such (the paper: of all). The mean is
// over rows and classes. Defaults: alpha .1, beta .5 (the paper's for split CIFAR-10, M = 200), M =
// 500, reservoir. A sample of weight 0 is not drawn: naive, bit for bit, at alpha = beta = 0 and at
// M = 0.
class DarkReplay : public Replay {
 public:
  DarkReplay(const std::string& name, const RunConfig& config, const StreamShape& shape,
             double beta)
      : Replay(name, config, shape, From::earlier, true,
               (config.train.strategy_options[kDerAlpha] > 0 ? 1 : 0) + (beta > 0 ? 1 : 0)),
        alpha_(config.train.strategy_options[kDerAlpha]),
        beta_(beta) {}

  torch::Tensor target_loss(StrategyContext& context, const TrainingBatch& batch) override {
    if (replayed().empty()) return {};
    const Task& task = context.stream.task();
    torch::Tensor loss = task.loss(batch.fresh_outputs(), batch.fresh_y());
    if (alpha_ > 0) {
      const Sample& sample = replayed().front();
      loss = loss + alpha_ * at::mse_loss(rows(batch, sample), sample.examples.outputs);
    }
    if (beta_ > 0) {
      const Sample& sample = replayed().back();
      loss = loss + beta_ * task.loss(rows(batch, sample), sample.examples.y);
    }
    return loss;
  }

 private:
  static torch::Tensor rows(const TrainingBatch& batch, const Sample& sample) {
    return batch.outputs.narrow(0, sample.begin, sample.count());
  }
  double alpha_;
  double beta_;
};

}  // namespace

const StrategyDeclaration& strategies::der() {
  static const StrategyDeclaration declaration{
      .name = "der",
      .sort = StrategySort::replay,
      .description = "dark experience replay: keeps the logits of remembered examples",
      .options = Replay::options({&kDerAlpha}),
      .needs = {.boundaries = true},
      .own_loss = true,
      .all_outputs = true,
      .refuse = Replay::refuse,
      .make = [](const RunConfig& config, const StreamShape& shape) -> StrategyPointer {
        return std::make_unique<DarkReplay>("der", config, shape, 0);
      },
  };
  return declaration;
}

const StrategyDeclaration& strategies::derpp() {
  static const StrategyDeclaration declaration{
      .name = "der++",
      .sort = StrategySort::replay,
      .description = "dark experience replay with the labels of a second sample",
      .options = Replay::options({&kDerAlpha, &kDerBeta}),
      .needs = {.boundaries = true},
      .own_loss = true,
      .all_outputs = true,
      .refuse = Replay::refuse,
      .make = [](const RunConfig& config, const StreamShape& shape) -> StrategyPointer {
        return std::make_unique<DarkReplay>("derpp", config, shape,
                                            config.train.strategy_options[kDerBeta]);
      },
  };
  return declaration;
}

}  // namespace perennial::continual
