// SPDX-License-Identifier: Apache-2.0
// Dark experience replay, with and without labels.
#include <ATen/ops/mse_loss.h>

#include "strategies/replay.h"

namespace perennial::continual {

namespace {

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
             double alpha, double beta)
      : Replay(name, config, shape, From::earlier, true, (alpha > 0 ? 1 : 0) + (beta > 0 ? 1 : 0)),
        alpha_(alpha),
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

StrategyPointer make_der(const RunConfig& config, const StreamShape& shape) {
  const StrategyOptions& options = config.train.strategy_options;
  return std::make_unique<DarkReplay>("der", config, shape, options.der_alpha, 0);
}

StrategyPointer make_derpp(const RunConfig& config, const StreamShape& shape) {
  const StrategyOptions& options = config.train.strategy_options;
  return std::make_unique<DarkReplay>("derpp", config, shape, options.der_alpha, options.der_beta);
}

}  // namespace perennial::continual
