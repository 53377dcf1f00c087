// SPDX-License-Identifier: Apache-2.0
// Progressive networks: a column for each experience.
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

// Rusu et al. 2016, "Progressive Neural Networks" (arXiv 1606.04671): each experience trains a new
// column of the network that also reads the hidden layers of the older ones (src/columns.cc has the
// equation), which train no more. Answers come from the column of the experience that an input is
// from, so it must be known at test; of an experience that was not learnt yet, from the newest.
// Parameters grow by one column and its lateral connections an experience, quadratically in all.
// Nothing to choose. Exactness: a column's answers do not change by one bit once its experience has
// ended, and gradients reach the newest column only.
class Progressive : public Strategy {
 public:
  void before_experience(StrategyContext& context) override {
    if (context.model.newest_generation() >= context.experience) return;
    context.model.add_column();
    context.log("column", {{"experience", context.experience},
                           {"parameters", context.model.dense_parameters()}});
  }
};

}  // namespace

const StrategyDeclaration& strategies::progressive() {
  static const StrategyDeclaration declaration{
      .name = "progressive",
      .description =
          "progressive networks: a new column of layers for each experience that reads the older "
          "ones",
      .needs = {.dense_parameters = "divides the layers of a dense network among experiences",
                .oracle =
                    "answers with the column of an input's experience, and must be told which",
                .boundaries = true},
      .make = make_one<Progressive>,
  };
  return declaration;
}

}  // namespace perennial::continual
