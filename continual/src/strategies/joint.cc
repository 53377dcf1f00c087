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

StrategyPointer make_joint() { return std::make_unique<Joint>(); }

}  // namespace perennial::continual
