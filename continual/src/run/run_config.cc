// SPDX-License-Identifier: Apache-2.0
// Checks and comparisons of a run's configuration.
#include "perennial/continual/run_config.h"

#include <algorithm>
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
  const bool generations = train.strategy.has("grow_freeze") && model.model == ModelKind::peer &&
                           model.head == HeadKind::trained &&
                           model.peer.routing == Routing::isolated;
  return generations ? GateKind::analytic : GateKind::none;
}

bool RunConfig::needs_experience() const {
  return std::ranges::any_of(train.strategy.parts(), [](const StrategyDeclaration* part) {
    return !part->needs.oracle.empty();
  });
}

std::int64_t RunConfig::first_columns() const {
  for (const StrategyDeclaration* part : train.strategy.parts()) {
    if (part->first_columns != nullptr) return part->first_columns(train.strategy_options);
  }
  return 0;
}

PeerOptions ModelOptions::layer(std::int64_t d_in, std::int64_t d_out) const {
  PeerOptions options = peer;
  options.d_in = d_in;
  options.d_out = d_out;
  options.dropout = dropout;
  options.seed = seed;
  return options;
}

void RunConfig::validate_strategies() const {
  train.strategy_options.refuse_unread(train.strategy);
  const bool peer = model.model == ModelKind::peer;
  for (const StrategyDeclaration* part : train.strategy.parts()) {
    const auto refuse = [&](std::string_view why, const char* remedy) {
      throw InvalidOptions("strategy " + std::string(part->name) + " " + std::string(why) + remedy);
    };
    const StrategyNeeds& needs = part->needs;
    if (!needs.dense_parameters.empty() && peer) {
      refuse(needs.dense_parameters, ": use model mlp, not peer");
    }
    if (!needs.pool.empty() && !peer) refuse(needs.pool, ": use model peer, not mlp");
    if (!needs.expert_gradients.empty() && (!peer || model.width > 0)) {
      refuse(needs.expert_gradients, ": use model peer with width 0");
    }
    if (!needs.classes.empty() && task() == TaskKind::regression) {
      refuse(needs.classes, ": it needs classes, and task regression has none");
    }
    if (!needs.oracle.empty() && gate() != GateKind::oracle) {
      refuse(needs.oracle, ": use scenario task, or gate oracle");
    }
    // Where the experience of an example is known, its loss counts the classes of that only.
    if (part->all_outputs && stream.resolved_scenario() == Scenario::task_incremental) {
      refuse(
          "reads outputs of other experiences' classes, which scenario task leaves out of the "
          "loss",
          "; use scenario class or domain");
    }
    if (!part->without_training && model.head == HeadKind::analytic) {
      throw InvalidOptions("head analytic is solved, not trained: strategy " +
                           std::string(part->name) +
                           " has nothing to do; use naive, joint, cumulative or grow_freeze");
    }
    if (part->refuse != nullptr) part->refuse(*this);
  }
}

void RunConfig::validate() const {
  stream.validate();
  validate_ranges(model);
  validate_ranges(train);
  const bool peer = model.model == ModelKind::peer;
  const bool isolated = peer && model.peer.routing == Routing::isolated;
  const bool grows = train.strategy.has("grow_freeze");
  if (task() == TaskKind::regression) validate_regression();
  validate_training();
  if (model.head == HeadKind::analytic) validate_head();
  validate_strategies();
  validate_dense();
  if (model.spare_classes > 0) validate_spare_classes();
  const GateKind kind = gate();
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
  if (peer) {
    const std::int64_t width = model.width > 0 ? model.width : 1;
    const PeerOptions options = model.layer(width, width);
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

void RunConfig::validate_spare_classes() const {
  const std::string spare = "spare_classes is " + std::to_string(model.spare_classes);
  if (model.model != ModelKind::peer || model.width > 0 || model.head != HeadKind::trained) {
    throw InvalidOptions(spare +
                         "; only experts that answer with the classes themselves (model peer, "
                         "width 0, head trained) need them, other models grow");
  }
  if (train.strategy.has("grow_freeze") && model.peer.routing != Routing::isolated) {
    throw InvalidOptions(spare +
                         "; with shared routing frozen experts would have a say in classes that "
                         "they never saw: use isolated routing or a width");
  }
  if (gate() == GateKind::analytic && train.gate_options.head_weight > 0) {
    throw InvalidOptions(spare + "; the gate's class heads (head_weight) have no room for more");
  }
}

void RunConfig::validate_head() const {
  const std::string head = "head analytic";
  if (model.model != ModelKind::peer || model.width > 0) {
    throw InvalidOptions(head + " needs model peer with width 0");
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
}

}  // namespace perennial::continual
