// SPDX-License-Identifier: Apache-2.0
// Cumulative: everything is kept and learnt again.
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

// Experience e trains on the union of the experiences up to e, shuffled together, from where the
// last one ended: an upper bound that sees the stream in order. Its cost grows with the square of
// the stream's length. Naive on that stream, bit for bit.
class Cumulative : public Strategy {
 public:
  Stream training_stream(const Stream& stream) const override { return stream.cumulative(); }
};

}  // namespace

const StrategyDeclaration& strategies::cumulative() {
  static const StrategyDeclaration declaration{
      .name = "cumulative",
      .description =
          "trains on all experiences so far, keeping every example; its cost grows with the stream",
      .needs = {.boundaries = true},
      .without_training = true,
      .make = make_one<Cumulative>,
  };
  return declaration;
}

}  // namespace perennial::continual
