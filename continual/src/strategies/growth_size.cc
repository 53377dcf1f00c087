// SPDX-License-Identifier: Apache-2.0
#include "strategies/growth_size.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

namespace perennial::continual {

namespace {

// A loss that keeps less than this of itself from one look to the next is still falling. Over 50
// steps of 64 examples the mean of a loss near 0.5 is known to about 0.015.
constexpr double kStalled = 0.95;

}  // namespace

void GrowthByNeed::begin() {
  sum_ = before_ = 0;
  steps_ = 0;
}

void GrowthByNeed::before_step(StrategyContext& context) {
  if (!on() || steps_ < window_) return;
  const double loss = sum_ / static_cast<double>(steps_);
  const bool stalled = before_ > 0 && loss > kStalled * before_;
  begin();
  before_ = loss;
  ExpertLayers& experts = *context.model.experts();
  const Pool& pool = *experts.pools().front();
  const Generation generation = pool.generations().back();
  const std::int64_t most = context.config.model.peer.cols;
  if (!stalled || !(loss > most_loss_) || generation.cols >= most) return;
  context.settle();
  experts.grow_columns(std::min<std::int64_t>(generation.cols, most - generation.cols));
  experts.unmask();
  context.regrown = true;
  context.log("widen", boost::json::object{{"experience", context.experience},
                                           {"generation", generation.index},
                                           {"step", context.step},
                                           {"loss", loss},
                                           {"cols", pool.generations().back().cols}});
}

void GrowthByNeed::after_step(const StrategyContext& context, const TrainingBatch& batch) {
  if (!on()) return;
  const at::NoGradGuard no_grad;
  sum_ +=
      context.stream.task().loss(batch.fresh_outputs().detach(), batch.fresh_y()).item<double>();
  ++steps_;
}

void GrowthByNeed::visit_state(StateVisitor& visitor) {
  if (!on()) return;
  torch::Tensor losses = at::tensor({sum_, before_}, at::kDouble);
  visitor.tensor("grow_freeze/losses", losses);
  sum_ = losses[0].item<double>();
  before_ = losses[1].item<double>();
  visitor.integer("grow_freeze/loss_steps", steps_);
}

}  // namespace perennial::continual
