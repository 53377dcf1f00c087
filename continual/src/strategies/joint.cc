// SPDX-License-Identifier: Apache-2.0
// Joint: the upper bound.
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

// One training experience, the union of all, shuffled together; naive on that stream, bit for bit.
class Joint : public Strategy {
 public:
  Stream training_stream(const Stream& stream) const override { return stream.joint(); }
};

}  // namespace

const StrategyDeclaration& strategies::joint() {
  static const StrategyDeclaration declaration{
      .name = "joint",
      .description =
          "trains on all experiences together, shuffled; the upper bound, not a continual learner",
      .without_training = true,
      .make = make_one<Joint>,
  };
  return declaration;
}

}  // namespace perennial::continual
