// SPDX-License-Identifier: Apache-2.0
// What the penalties on changed parameters share.
#pragma once

#include "model/parameter_vector.h"
#include "strategies/strategies.h"

namespace perennial::continual {

// Adds the gradient of weight/2 sum_p importance_p (theta_p - anchor_p)^2 to that of the loss,
// after the backward: no graph is made for it, and the loss that is reported leaves it out. Nothing
// is added or computed at weight 0, nor before the first importances. Memory 2 P; a step reads them
// once.
class QuadraticPenalty : public Strategy {
 public:
  static constexpr StrategyNeeds kNeeds = {
      .dense_parameters =
          "keeps an importance for each dense parameter, and experts of a pool have none",
      .boundaries = true};

  // Entries "NAME/importance" and "NAME/anchor".
  QuadraticPenalty(std::string name, double weight) : name_(std::move(name)), weight_(weight) {}

  void after_backward(StrategyContext& context, const TrainingBatch& batch) override;
  void visit_state(StateVisitor& visitor) override;

 protected:
  const std::string& name() const { return name_; }
  bool on() const { return weight_ > 0; }
  ParameterVector& importance() { return importance_; }
  ParameterVector& anchor() { return anchor_; }

 private:
  std::string name_;
  double weight_;
  ParameterVector importance_;
  ParameterVector anchor_;
};

}  // namespace perennial::continual
