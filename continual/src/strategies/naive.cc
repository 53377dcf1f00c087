// SPDX-License-Identifier: Apache-2.0
// Naive: the lower bound.
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

// Fine-tuning: nothing is done against forgetting.
class Naive : public Strategy {
 public:
  bool extend(const StreamShape&, const StreamShape&) override { return true; }
};

}  // namespace

const StrategyDeclaration& strategies::naive() {
  static const StrategyDeclaration declaration{
      .name = "naive",
      .description =
          "trains on each experience in turn and does nothing against forgetting; the lower bound",
      .without_training = true,
      .make = make_one<Naive>,
  };
  return declaration;
}

}  // namespace perennial::continual
