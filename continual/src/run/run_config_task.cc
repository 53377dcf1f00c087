// SPDX-License-Identifier: Apache-2.0
// Checks of a run's configuration: what a task that has no classes leaves out.
#include <string>

#include "perennial/continual/run_config.h"

namespace perennial::continual {

void RunConfig::validate_regression() const {
  const auto refuse = [](const std::string& what) {
    throw InvalidOptions(what + " needs classes, and task regression has none");
  };
  if (model.spare_classes > 0) refuse("spare_classes");
  if (train.gate_options.head_weight > 0) refuse("head_weight");
}

}  // namespace perennial::continual
