// SPDX-License-Identifier: Apache-2.0
// Checks of a run's configuration: what a task that has no classes leaves out.
#include <string>

#include "perennial/continual/run_config.h"

namespace perennial::continual {

void RunConfig::validate_regression() const {
  const auto refuse = [](const std::string& what) {
    throw InvalidOptions(what + " needs classes, and task regression has none");
  };
  for (const StrategyKind kind : train.strategy.kinds()) {
    const std::string_view why = needs_classes(kind);
    if (why.empty()) continue;
    refuse("strategy " + std::string(enum_name(kind)) + " " + std::string(why) + ": it");
  }
  const BufferKind buffer = train.strategy_options.buffer;
  if (buffer == BufferKind::class_balanced || buffer == BufferKind::greedy) {
    refuse("buffer " + std::string(enum_name(buffer)));
  }
  if (model.spare_classes > 0) refuse("spare_classes");
  if (train.gate_options.head_weight > 0) refuse("head_weight");
}

}  // namespace perennial::continual
