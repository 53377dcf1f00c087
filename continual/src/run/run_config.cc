// SPDX-License-Identifier: Apache-2.0
// Checks and comparisons of a run's configuration.
#include "perennial/continual/run_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace perennial::continual {

EnumNames<ModelKind> enum_names(ModelKind) {
  return {{ModelKind::mlp, "mlp"}, {ModelKind::peer, "peer"}};
}
EnumNames<InputKind> enum_names(InputKind) {
  return {{InputKind::raw, "raw"}, {InputKind::filters, "filters"}};
}
EnumNames<HeadInputs> enum_names(HeadInputs) {
  return {{HeadInputs::automatic, "automatic"},
          {HeadInputs::filters, "filters"},
          {HeadInputs::columns, "columns"}};
}
EnumNames<HeadKind> enum_names(HeadKind) {
  return {{HeadKind::trained, "trained"}, {HeadKind::analytic, "analytic"}};
}
EnumNames<OptimizerKind> enum_names(OptimizerKind) {
  return {
      {OptimizerKind::adam, "adam"}, {OptimizerKind::sgd, "sgd"}, {OptimizerKind::adamw, "adamw"}};
}
EnumNames<ExpertOptimizer> enum_names(ExpertOptimizer) {
  return {{ExpertOptimizer::same, "same"},
          {ExpertOptimizer::sgd, "sgd"},
          {ExpertOptimizer::adam, "adam"},
          {ExpertOptimizer::adamw, "adamw"},
          {ExpertOptimizer::rowwise_adagrad, "rowwise_adagrad"}};
}
EnumNames<LrSchedule> enum_names(LrSchedule) {
  return {{LrSchedule::constant, "constant"},
          {LrSchedule::linear, "linear"},
          {LrSchedule::cosine, "cosine"}};
}

double lr_factor(LrSchedule schedule, std::int64_t step, std::int64_t steps) {
  const double done = static_cast<double>(step) / static_cast<double>(steps);
  switch (schedule) {
    case LrSchedule::constant:
      return 1;
    case LrSchedule::linear:
      return 1 - done;
    case LrSchedule::cosine:
      return (1 + std::cos(std::numbers::pi * done)) / 2;
  }
  return 1;
}

double warmup_factor(std::int64_t step, std::int64_t warmup) {
  return step + 1 < warmup ? static_cast<double>(step + 1) / static_cast<double>(warmup) : 1;
}

EnumNames<GateChoice> enum_names(GateChoice) {
  return {{GateChoice::automatic, "automatic"},
          {GateChoice::oracle, "oracle"},
          {GateChoice::none, "none"},
          {GateChoice::analytic, "analytic"},
          {GateChoice::autoencoder, "autoencoder"}};
}

SparseOptimizerOptions TrainOptions::experts() const {
  SparseOptimizerOptions options;
  switch (expert_optimizer) {
    case ExpertOptimizer::same:
      options.algorithm = optimizer == OptimizerKind::adam    ? SparseAlgorithm::adam
                          : optimizer == OptimizerKind::adamw ? SparseAlgorithm::adamw
                                                              : SparseAlgorithm::sgd;
      break;
    case ExpertOptimizer::sgd:
      options.algorithm = SparseAlgorithm::sgd;
      break;
    case ExpertOptimizer::adam:
      options.algorithm = SparseAlgorithm::adam;
      break;
    case ExpertOptimizer::adamw:
      options.algorithm = SparseAlgorithm::adamw;
      break;
    case ExpertOptimizer::rowwise_adagrad:
      options.algorithm = SparseAlgorithm::rowwise_adagrad;
      break;
  }
  options.lr = expert_lr > 0 ? expert_lr : lr;
  options.momentum = expert_momentum;
  options.weight_decay = expert_weight_decay;
  return options;
}

GateKind RunConfig::gate() const {
  switch (train.gate) {
    case GateChoice::oracle:
      return GateKind::oracle;
    case GateChoice::none:
      return GateKind::none;
    case GateChoice::analytic:
      return GateKind::analytic;
    case GateChoice::autoencoder:
      return GateKind::autoencoder;
    case GateChoice::automatic:
      break;
  }
  if (needs_experience()) {
    return stream.resolved_scenario() == Scenario::task_incremental ? GateKind::oracle
                                                                    : GateKind::none;
  }
  const bool generations = train.strategy.has(StrategyKind::grow_freeze) &&
                           model.model == ModelKind::peer && model.head == HeadKind::trained &&
                           model.peer.routing == Routing::isolated;
  return generations ? GateKind::analytic : GateKind::none;
}

bool RunConfig::needs_experience() const {
  return train.strategy.has(StrategyKind::packnet) || train.strategy.has(StrategyKind::progressive);
}

// What a strategy would have to read or change and cannot with this model.
void RunConfig::require_reach() const {
  if (train.strategy.has(StrategyKind::sparse_slot) &&
      (model.model != ModelKind::peer || model.width > 0)) {
    throw InvalidOptions(
        "strategy sparse_slot chooses among the experts that an input retrieves: use model peer "
        "with width 0");
  }
  if (model.model != ModelKind::peer) return;
  for (const StrategyKind kind : train.strategy.kinds()) {
    const std::string name(enum_name(kind));
    switch (kind) {
      case StrategyKind::l2:
      case StrategyKind::ewc:
      case StrategyKind::online_ewc:
      case StrategyKind::si:
      case StrategyKind::mas:
        throw InvalidOptions("strategy " + name +
                             " keeps an importance for each dense parameter, and the experts of a "
                             "pool are none: use model mlp, not peer");
      case StrategyKind::gem:
      case StrategyKind::agem:
        throw InvalidOptions("strategy " + name +
                             " projects the gradient of dense parameters, and the experts of a "
                             "pool are none: use model mlp, not peer");
      case StrategyKind::packnet:
      case StrategyKind::progressive:
        throw InvalidOptions("strategy " + name +
                             " divides the layers of a dense network among experiences: use model "
                             "mlp, not peer");
      case StrategyKind::gdumb:
        throw InvalidOptions(
            "strategy gdumb starts the model anew after each experience, and a pool keeps its "
            "experts: use model mlp, not peer");
      case StrategyKind::icarl:
        throw InvalidOptions(
            "strategy icarl needs the model as it was before the experience and its last hidden "
            "layer, which a pool does not keep or have: use model mlp, not peer");
      case StrategyKind::lwf:
        if (!train.strategy.has(StrategyKind::grow_freeze) ||
            model.peer.routing != Routing::isolated) {
          throw InvalidOptions(
              "strategy lwf needs the model as it was before the experience, and a pool that "
              "trains on keeps none: use grow_freeze+lwf with isolated routing, whose frozen "
              "generation it is, or model mlp");
        }
        break;
      default:
        break;
    }
  }
}

void RunConfig::validate() const {
  stream.validate();
  validate_ranges(model);
  validate_ranges(train);
  const bool peer = model.model == ModelKind::peer;
  const bool isolated = peer && model.peer.routing == Routing::isolated;
  const bool grows = train.strategy.has(StrategyKind::grow_freeze);
  if (task() == TaskKind::regression) validate_regression();
  validate_training();
  require_reach();
  require_loss_of_tasks();
  if (train.strategy == StrategyKind::icarl &&
      stream.resolved_scenario() == Scenario::domain_incremental) {
    throw InvalidOptions(
        "strategy icarl is for classes that come in turn, and in scenario domain no class is new "
        "after the first experience; use scenario class");
  }
  if (train.strategy == StrategyKind::gdumb) {
    if (train.strategy_options.memory == 0) {
      throw InvalidOptions("memory is 0; strategy gdumb learns from nothing else");
    }
    if (train.lr_schedule != LrSchedule::constant) {
      throw InvalidOptions("strategy gdumb needs lr_schedule constant, not " +
                           std::string(enum_name(train.lr_schedule)) +
                           ": it trains after an experience, not within");
    }
  }
  if (grows && !peer) {
    throw InvalidOptions("strategy grow_freeze needs a pool of experts: use model peer, not " +
                         std::string(enum_name(model.model)));
  }
  if (grows && isolated && model.width > 0) {
    throw InvalidOptions("strategy grow_freeze with isolated routing needs width 0, not " +
                         std::to_string(model.width) +
                         ": dense layers around the pool would go on changing what is frozen");
  }
  if (train.strategy_options.output_regularisation > 0) validate_output_regularisation();
  if (model.head == HeadKind::analytic) validate_head();
  validate_dense();
  if (model.spare_classes > 0) validate_spare_classes();
  const GateKind kind = gate();
  if (needs_experience() && kind != GateKind::oracle) {
    throw InvalidOptions("strategy " + train.strategy.text() +
                         " answers with the part of the network that learnt an input's experience, "
                         "and must be told which: use scenario task, or gate oracle");
  }
  if (kind != GateKind::none && !(grows && isolated) && !needs_experience()) {
    throw InvalidOptions("gate " + std::string(enum_name(kind)) +
                         " needs generations to choose from: strategy grow_freeze with isolated "
                         "routing");
  }
  if (kind == GateKind::autoencoder && train.gate_options.head_weight > 0) {
    throw InvalidOptions("head_weight is " + std::to_string(train.gate_options.head_weight) +
                         "; class heads are solved from the statistics of the analytic gate, which "
                         "gate autoencoder has none of");
  }
  if (kind != GateKind::analytic && train.return_novelty > 0) {
    throw InvalidOptions("return_novelty is " + std::to_string(train.return_novelty) +
                         "; it needs the statistics of the analytic gate");
  }
  if (train.strategy_options.growth == GrowthKind::drift) validate_growth();
  if (train.strategy_options.growth_size == GrowthSize::need) validate_growth_size();
  if (peer) {
    PeerOptions options = model.peer;
    options.d_in = options.d_out = model.width > 0 ? model.width : 1;
    options.validate();
    if (train.expert_momentum > 0 && train.experts().algorithm != SparseAlgorithm::sgd) {
      std::string message = "expert_momentum is " + std::to_string(train.expert_momentum);
      message.append("; the experts' optimizer is ")
          .append(enum_name(train.experts().algorithm))
          .append(", and only sgd has momentum");
      throw InvalidOptions(message);
    }
    train.experts().validate();
    if (options.query_norm == QueryNorm::batch && train.batch < 2) {
      throw InvalidOptions("batch is 1; query_norm batch needs at least 2 examples a step");
    }
  }
}

void RunConfig::validate_growth() const {
  const std::string drift = "growth drift";
  if (train.strategy != StrategyKind::grow_freeze) {
    throw InvalidOptions(drift + " is for strategy grow_freeze, not for " + train.strategy.text());
  }
  if (gate() != GateKind::analytic) {
    throw InvalidOptions(drift + " needs the analytic gate, not gate " +
                         std::string(enum_name(gate())) +
                         ": generations are no experiences, and nobody says which is asked");
  }
  if (model.head != HeadKind::trained) {
    throw InvalidOptions(drift + " needs a loss: head trained, not analytic");
  }
  if (stream.stream == StreamKind::single) {
    throw InvalidOptions(drift +
                         " needs a stream that changes: permuted, split or rotated, not "
                         "single");
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
}

void RunConfig::validate_spare_classes() const {
  const std::string spare = "spare_classes is " + std::to_string(model.spare_classes);
  if (model.model != ModelKind::peer || model.width > 0 || model.head != HeadKind::trained) {
    throw InvalidOptions(spare +
                         "; only experts that answer with the classes themselves (model peer, "
                         "width 0, head trained) need them, other models grow");
  }
  if (train.strategy.has(StrategyKind::grow_freeze) && model.peer.routing != Routing::isolated) {
    throw InvalidOptions(spare +
                         "; with shared routing frozen experts would have a say in classes that "
                         "they never saw: use isolated routing or a width");
  }
  if (gate() == GateKind::analytic && train.gate_options.head_weight > 0) {
    throw InvalidOptions(spare + "; the gate's class heads (head_weight) have no room for more");
  }
}

void RunConfig::validate_output_regularisation() const {
  const std::string is =
      "output_regularisation is " + std::to_string(train.strategy_options.output_regularisation);
  if (!train.strategy.has(StrategyKind::grow_freeze) || model.model != ModelKind::peer ||
      model.peer.routing != Routing::shared) {
    throw InvalidOptions(is +
                         "; it distils what growth would change: use strategy grow_freeze with "
                         "shared routing (isolated generations do not change)");
  }
  if (model.width > 0 || model.head != HeadKind::trained) {
    throw InvalidOptions(is +
                         "; it needs width 0 and head trained, so that the layer's outputs are "
                         "the model's");
  }
  if (stream.resolved_scenario() == Scenario::task_incremental) {
    throw InvalidOptions(is +
                         "; it reads outputs of other experiences' classes, which scenario task "
                         "leaves out of the loss; use scenario class or domain");
  }
}

void RunConfig::validate_head() const {
  const std::string head = "head analytic";
  if (model.model != ModelKind::peer || model.width > 0) {
    throw InvalidOptions(head + " needs model peer with width 0");
  }
  using enum StrategyKind;
  constexpr std::array kAllowed = {naive, joint, cumulative, grow_freeze};
  for (const StrategyKind kind : train.strategy.kinds()) {
    if (std::find(kAllowed.begin(), kAllowed.end(), kind) != kAllowed.end()) continue;
    std::string message = head;
    message.append(" is solved, not trained: strategy ")
        .append(enum_name(kind))
        .append(" has nothing to do; use naive, joint, cumulative or grow_freeze");
    throw InvalidOptions(message);
  }
  if (train.gate != GateChoice::automatic && train.gate != GateChoice::none) {
    throw InvalidOptions(head + " answers for all classes; it has no gate " +
                         std::string(enum_name(train.gate)));
  }
  if (train.epochs > 1) {
    throw InvalidOptions(head + " needs epochs 1, not " + std::to_string(train.epochs) +
                         ": it is solved, and to count the same examples again is a smaller "
                         "head_ridge");
  }
  if (model.head_inputs == HeadInputs::columns) return;
  if (model.head_pool > 0 && model.peer.routing != Routing::isolated) {
    throw InvalidOptions(head + " needs isolated routing, not " +
                         std::string(enum_name(model.peer.routing)) +
                         ": it reads the output of one frozen generation");
  }
  if (model.head_filters == 0 && model.head_pool == 0) {
    throw InvalidOptions(head + " needs features: head_filters and head_pool are both 0");
  }
  if (model.head_pool == 0 && train.strategy.has(grow_freeze)) {
    throw InvalidOptions("head_pool is 0; strategy grow_freeze needs a pool");
  }
}

// Where the experience of an example is known, its loss counts the classes of that only; what looks
// at other outputs of the model would not.
void RunConfig::require_loss_of_tasks() const {
  if (stream.resolved_scenario() != Scenario::task_incremental) return;
  using enum StrategyKind;
  constexpr std::array kAllowed = {naive,      joint, cumulative, grow_freeze, l2, ewc,
                                   online_ewc, si,    mas,        lwf,         er, agem,
                                   gem,        gdumb, packnet,    progressive};
  for (const StrategyKind kind : train.strategy.kinds()) {
    if (std::find(kAllowed.begin(), kAllowed.end(), kind) != kAllowed.end()) continue;
    std::string message = "strategy ";
    message.append(enum_name(kind))
        .append(
            " reads outputs of other experiences' classes, which scenario task "
            "leaves out of the loss; use scenario class or domain");
    throw InvalidOptions(message);
  }
}

}  // namespace perennial::continual
