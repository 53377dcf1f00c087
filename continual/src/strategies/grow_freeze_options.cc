// SPDX-License-Identifier: Apache-2.0
// What the options of grow_freeze work with.
#include "strategies/grow_freeze.h"

namespace perennial::continual {

EnumNames<GrowthKind> enum_names(GrowthKind) {
  return {{GrowthKind::experience, "experience"}, {GrowthKind::drift, "drift"}};
}
EnumNames<GrowthSize> enum_names(GrowthSize) {
  return {{GrowthSize::full, "full"}, {GrowthSize::need, "need"}};
}

namespace {

void refuse_drift(const RunConfig& config) {
  const TrainOptions& train = config.train;
  const std::string drift = "growth drift";
  if (train.strategy != "grow_freeze") {
    throw InvalidOptions(drift + " is for strategy grow_freeze, not for " + train.strategy.text());
  }
  if (config.gate() != GateKind::analytic) {
    throw InvalidOptions(drift + " needs the analytic gate, not gate " +
                         std::string(enum_name(config.gate())) +
                         ": a generation is not an experience, and nobody says which is asked");
  }
  if (config.model.head != HeadKind::trained) {
    throw InvalidOptions(drift + " needs a loss: head trained, not analytic");
  }
  if (config.stream.stream == StreamKind::single) {
    throw InvalidOptions(drift +
                         " needs a stream that changes: permuted, split or rotated, not single");
  }
  if (train.epochs != 1) {
    throw InvalidOptions(drift + " is for one pass, not for " + std::to_string(train.epochs) +
                         " epochs: passes over an experience announce its boundaries");
  }
  if (train.lr_schedule != LrSchedule::constant) {
    throw InvalidOptions(drift + " needs lr_schedule constant, not " +
                         std::string(enum_name(train.lr_schedule)) +
                         ": nobody knows when an experience will end");
  }
  if (train.warmup > 0) {
    throw InvalidOptions("warmup is " + std::to_string(train.warmup) +
                         "; with growth drift nobody knows when an experience begins");
  }
}

void refuse_need(const RunConfig& config) {
  const StrategyOptions& options = config.train.strategy_options;
  const PeerOptions& peer = config.model.peer;
  const std::string need = "growth_size need";
  if (peer.routing != Routing::isolated) {
    throw InvalidOptions(need +
                         " needs isolated routing: with shared routing columns are those of all "
                         "generations");
  }
  if (config.model.head != HeadKind::trained) {
    throw InvalidOptions(need + " needs a loss: head trained, not analytic");
  }
  if (options[kGrowth] == GrowthKind::drift) {
    throw InvalidOptions(need +
                         " is for announced experiences: growth drift already acts on the loss");
  }
  const std::int64_t start = options[kGrowthStart];
  if (start > peer.cols) {
    throw InvalidOptions("growth_start is " + std::to_string(start) + "; a generation has " +
                         std::to_string(peer.cols) + " columns at most (cols)");
  }
  if (static_cast<double>(peer.rows) * static_cast<double>(start) <
      static_cast<double>(peer.top_k)) {
    throw InvalidOptions("growth_start is " + std::to_string(start) +
                         "; the first experts of a generation, rows x growth_start = " +
                         std::to_string(peer.rows * start) +
                         ", are fewer than top_k = " + std::to_string(peer.top_k));
  }
}

void refuse_output_regularisation(const RunConfig& config) {
  const std::string is =
      "output_regularisation is " +
      options_detail::short_number(config.train.strategy_options[kOutputRegularisation]);
  if (config.model.peer.routing != Routing::shared) {
    throw InvalidOptions(is +
                         "; it distils what growth would change: use shared routing (isolated "
                         "generations do not change)");
  }
  if (config.model.width > 0 || config.model.head != HeadKind::trained) {
    throw InvalidOptions(is +
                         "; it needs width 0 and head trained, so that the layer's outputs are "
                         "the model's");
  }
  if (config.stream.resolved_scenario() == Scenario::task_incremental) {
    throw InvalidOptions(is +
                         "; it reads outputs of other experiences' classes, which scenario task "
                         "leaves out of the loss; use scenario class or domain");
  }
  if (config.train.micro_batch > 0) {
    throw InvalidOptions("micro_batch is " + std::to_string(config.train.micro_batch) +
                         "; output_regularisation is of a step's rows together");
  }
}

}  // namespace

void refuse_growth(const RunConfig& config) {
  const StrategyOptions& options = config.train.strategy_options;
  if (config.model.peer.routing == Routing::isolated && config.model.width > 0) {
    throw InvalidOptions("strategy grow_freeze with isolated routing needs width 0, not " +
                         std::to_string(config.model.width) +
                         ": dense layers around the pool would go on changing what is frozen");
  }
  if (config.model.head == HeadKind::analytic && config.model.head_inputs != HeadInputs::columns &&
      config.model.head_pool == 0) {
    throw InvalidOptions("head_pool is 0; strategy grow_freeze needs a pool");
  }
  if (options[kOutputRegularisation] > 0) refuse_output_regularisation(config);
  if (options[kGrowth] == GrowthKind::drift) refuse_drift(config);
  if (options[kGrowthSize] == GrowthSize::need) refuse_need(config);
}

}  // namespace perennial::continual
