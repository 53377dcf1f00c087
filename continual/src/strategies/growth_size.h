// SPDX-License-Identifier: Apache-2.0
// How large a generation becomes, by the loss that it trains with.
#pragma once

#include "strategies/grow_freeze.h"

namespace perennial::continual {

// growth_size need. A generation opens with growth_start columns. After each growth_window steps
// the mean cross entropy of the stream's rows, as each step's forward had it, is looked at: where
// it is above growth_loss and has fallen by less than 5% since the look before, the columns double,
// up to the model's cols. The new experts and keys have their initial values and train from the
// next step on; what trained before keeps its weights and moments. So an experience that is soon
// learnt, or still being learnt at a good pace, keeps a small generation, and what a step costs
// follows its size. Ours; no paper's. Without the second condition every generation of permuted
// Fashion-MNIST grew to its full size within 150 steps, for nothing (docs/continual.md).
//
// The figures so far are the state, so a run that resumes grows at the same step.
class GrowthByNeed {
 public:
  explicit GrowthByNeed(const StrategyOptions& options)
      : on_(options[kGrowthSize] == GrowthSize::need),
        most_loss_(options[kGrowthLoss]),
        window_(options[kGrowthWindow]) {}

  bool on() const { return on_; }
  // A generation opens.
  void begin();
  // Before a step: perhaps widens the open generation.
  void before_step(StrategyContext& context);
  // After a step: its loss.
  void after_step(const StrategyContext& context, const TrainingBatch& batch);
  // Nothing when off, so that runs without it have the state that they had.
  void visit_state(StateVisitor& visitor);

 private:
  bool on_;
  double most_loss_;
  std::int64_t window_;
  double sum_ = 0;
  double before_ = 0;       // the mean at the look before; 0 = there was none
  std::int64_t steps_ = 0;  // in the sum
};

}  // namespace perennial::continual
