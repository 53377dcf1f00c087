// SPDX-License-Identifier: Apache-2.0
// Checks of a run's configuration: how large generations become, what dense layers read.
#include <string>

#include "perennial/continual/run_config.h"

namespace perennial::continual {

void RunConfig::validate_growth_size() const {
  const std::string need = "growth_size need";
  const StrategyOptions& options = train.strategy_options;
  if (!train.strategy.has(StrategyKind::grow_freeze)) {
    throw InvalidOptions(need + " is of strategy grow_freeze, not of " + train.strategy.text());
  }
  if (model.peer.routing != Routing::isolated) {
    throw InvalidOptions(need +
                         " needs isolated routing: with shared routing columns are those of all "
                         "generations");
  }
  if (model.head != HeadKind::trained) {
    throw InvalidOptions(need + " needs a loss: head trained, not analytic");
  }
  if (options.growth == GrowthKind::drift) {
    throw InvalidOptions(need +
                         " is for announced experiences: growth drift already acts on the loss");
  }
  if (options.growth_start > model.peer.cols) {
    throw InvalidOptions("growth_start is " + std::to_string(options.growth_start) +
                         "; a generation has " + std::to_string(model.peer.cols) +
                         " columns at most (cols)");
  }
  if (static_cast<double>(model.peer.rows) * static_cast<double>(options.growth_start) <
      static_cast<double>(model.peer.top_k)) {
    throw InvalidOptions("growth_start is " + std::to_string(options.growth_start) +
                         "; the first experts of a generation, rows x growth_start = " +
                         std::to_string(model.peer.rows * options.growth_start) +
                         ", are fewer than top_k = " + std::to_string(model.peer.top_k));
  }
}

void RunConfig::validate_dense() const {
  if (model.inputs == InputKind::filters) {
    if (model.model != ModelKind::mlp) {
      throw InvalidOptions("inputs filters is for model mlp, not for " +
                           std::string(enum_name(model.model)) +
                           ", which reads filters with head analytic");
    }
    if (model.head_filters == 0) {
      throw InvalidOptions("head_filters is 0; inputs filters reads nothing else");
    }
  }
  if (model.model == ModelKind::mlp && model.depth == 0 &&
      train.strategy.has(StrategyKind::packnet)) {
    throw InvalidOptions(
        "depth is 0; strategy packnet divides the weights of hidden layers among experiences, and "
        "a mlp of depth 0 has none");
  }
  if (model.model == ModelKind::mlp && model.depth == 0 && model.peer.dropout > 0) {
    throw InvalidOptions("dropout is " + std::to_string(model.peer.dropout) +
                         "; it leaves out hidden units, and a mlp of depth 0 has none");
  }
}

}  // namespace perennial::continual
