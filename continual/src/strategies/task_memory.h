// SPDX-License-Identifier: Apache-2.0
// What GEM and A-GEM share: the newest m examples of each experience, and the gradients on them.
#pragma once

#include <vector>

#include "model/parameter_vector.h"
#include "strategies/replay_buffer.h"
#include "strategies/shared_options.h"
#include "strategies/strategies.h"

namespace perennial::continual {

// T experiences, P dense parameters.
class TaskMemory : public Strategy {
 public:
  static constexpr StrategyNeeds kNeeds = {
      .dense_parameters =
          "projects the gradient of dense parameters, and experts of a pool are left out of it",
      .boundaries = true};

  TaskMemory(std::string name, const RunConfig& config, const StreamShape& shape);

  void after_step(StrategyContext& context, const TrainingBatch& batch) override;
  void visit_state(StateVisitor& visitor) override;

 protected:
  std::int64_t held(std::int64_t experience) const;
  // Examples of earlier experiences, in order: `first` and `count` select among all of them.
  std::int64_t held_before(std::int64_t experience) const;
  Examples take(StrategyContext& context, const std::vector<std::int64_t>& slots) const;
  // The slot of example `i` of experience `experience`.
  std::int64_t slot(std::int64_t experience, std::int64_t i) const {
    return experience * each_ + i;
  }
  // The gradient (P) of the mean cross entropy of these examples; leaves the parameters' own alone.
  static torch::Tensor gradient_of(StrategyContext& context, const Examples& examples);
  // The parameters' gradients (P), and setting them.
  static torch::Tensor gradient(StrategyContext& context);
  static void set_gradient(StrategyContext& context, const torch::Tensor& gradient);

 private:
  std::string name_;
  std::int64_t each_;
  ExampleSlots slots_;
  std::vector<std::int64_t> seen_;  // (T) examples seen of each experience, in their first pass
};

}  // namespace perennial::continual
