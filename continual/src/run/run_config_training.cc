// SPDX-License-Identifier: Apache-2.0
// Checks of a run's configuration: how a step is taken.
#include <string>

#include "perennial/continual/run_config.h"

namespace perennial::continual {

void RunConfig::validate_training() const {
  if (train.weight_decay > 0 && train.optimizer != OptimizerKind::adamw) {
    throw InvalidOptions("weight_decay is " + std::to_string(train.weight_decay) +
                         "; it needs optimizer adamw, not " +
                         std::string(enum_name(train.optimizer)));
  }
  std::string option;  // of those that change a step, one that is asked for
  if (train.warmup > 0) option = "warmup is " + std::to_string(train.warmup);
  if (train.clip_norm > 0) option = "clip_norm is " + std::to_string(train.clip_norm);
  if (train.micro_batch > 0) option = "micro_batch is " + std::to_string(train.micro_batch);
  if (option.empty()) return;
  if (model.head == HeadKind::analytic) {
    throw InvalidOptions(option + "; head analytic is solved, and takes no steps by gradient");
  }
  for (const StrategyDeclaration* part : train.strategy.parts()) {
    if (!part->trains_after) continue;
    throw InvalidOptions(option + "; strategy " + std::string(part->name) +
                         " also trains after an experience, where it does not hold");
  }
  if (train.micro_batch == 0) return;
  if (model.model == ModelKind::peer && model.peer.query_norm == QueryNorm::batch) {
    throw InvalidOptions(option +
                         "; query_norm batch takes its statistics over the whole batch: use "
                         "query_norm layer or rms");
  }
  for (const StrategyDeclaration* part : train.strategy.parts()) {
    if (!part->own_loss) continue;
    throw InvalidOptions(option + "; the loss of strategy " + std::string(part->name) +
                         " is of a step's rows together");
  }
}

}  // namespace perennial::continual
