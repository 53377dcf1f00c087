// SPDX-License-Identifier: Apache-2.0
// Checks and comparisons of a run's configuration.
#include "perennial/continual/run_config.h"

#include <boost/json/serialize.hpp>
#include <cmath>
#include <numbers>

namespace perennial::continual {

namespace json = boost::json;

EnumNames<ModelKind> enum_names(ModelKind) {
  return {{ModelKind::mlp, "mlp"}, {ModelKind::peer, "peer"}};
}
EnumNames<HeadKind> enum_names(HeadKind) {
  return {{HeadKind::trained, "trained"}, {HeadKind::analytic, "analytic"}};
}
EnumNames<StrategyKind> enum_names(StrategyKind) {
  return {{StrategyKind::naive, "naive"},
          {StrategyKind::joint, "joint"},
          {StrategyKind::grow_freeze, "grow_freeze"}};
}
EnumNames<OptimizerKind> enum_names(OptimizerKind) {
  return {{OptimizerKind::adam, "adam"}, {OptimizerKind::sgd, "sgd"}};
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

EnumNames<GateChoice> enum_names(GateChoice) {
  return {{GateChoice::automatic, "automatic"},
          {GateChoice::oracle, "oracle"},
          {GateChoice::none, "none"},
          {GateChoice::analytic, "analytic"}};
}

std::string_view describe(StrategyKind kind) {
  switch (kind) {
    case StrategyKind::naive:
      return "trains on each experience in turn and does nothing against forgetting; the lower "
             "bound";
    case StrategyKind::joint:
      return "trains on all experiences together, shuffled; the upper bound, not a continual "
             "learner";
    case StrategyKind::grow_freeze:
      return "grows the pool by a generation for each experience and freezes it afterwards; needs "
             "--model peer";
  }
  return "";
}

SparseOptimizerOptions TrainOptions::experts() const {
  SparseOptimizerOptions options;
  switch (expert_optimizer) {
    case ExpertOptimizer::same:
      options.algorithm =
          optimizer == OptimizerKind::adam ? SparseAlgorithm::adam : SparseAlgorithm::sgd;
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
    case GateChoice::automatic:
      break;
  }
  const bool generations = train.strategy == StrategyKind::grow_freeze &&
                           model.model == ModelKind::peer && model.head == HeadKind::trained &&
                           model.peer.routing == Routing::isolated;
  return generations ? GateKind::analytic : GateKind::none;
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
  if (model.head_filters == 0 && model.head_pool == 0) {
    throw InvalidOptions(head + " needs features: head_filters and head_pool are both 0");
  }
  if (model.head_pool == 0 && train.strategy == StrategyKind::grow_freeze) {
    throw InvalidOptions("head_pool is 0; strategy grow_freeze needs a pool");
  }
}

void RunConfig::validate() const {
  validate_ranges(stream);
  validate_ranges(model);
  validate_ranges(train);
  const bool peer = model.model == ModelKind::peer;
  const bool isolated = peer && model.peer.routing == Routing::isolated;
  if (train.strategy == StrategyKind::grow_freeze && !peer) {
    throw InvalidOptions("strategy grow_freeze needs a pool of experts: use model peer, not " +
                         std::string(enum_name(model.model)));
  }
  if (train.strategy == StrategyKind::grow_freeze && isolated && model.width > 0) {
    throw InvalidOptions("strategy grow_freeze with isolated routing needs width 0, not " +
                         std::to_string(model.width) +
                         ": dense layers around the pool would go on changing what is frozen");
  }
  if (model.head == HeadKind::analytic) validate_head();
  const GateKind kind = gate();
  if (kind != GateKind::none && !(train.strategy == StrategyKind::grow_freeze && isolated)) {
    throw InvalidOptions("gate " + std::string(enum_name(kind)) +
                         " needs generations to choose from: strategy grow_freeze with isolated "
                         "routing");
  }
  if (kind != GateKind::analytic && train.return_novelty > 0) {
    throw InvalidOptions("return_novelty is " + std::to_string(train.return_novelty) +
                         "; it needs the statistics of the analytic gate");
  }
  if (peer) {
    PeerOptions options = model.peer;
    options.d_in = options.d_out = model.width > 0 ? model.width : 1;
    options.validate();
    train.experts().validate();
    if (options.query_norm == QueryNorm::batch && train.batch < 2) {
      throw InvalidOptions("batch is 1; query_norm batch needs at least 2 examples a step");
    }
  }
}

json::object RunConfig::to_json() const {
  return {{"stream", perennial::to_json(stream)},
          {"model", perennial::to_json(model)},
          {"train", perennial::to_json(train)}};
}

RunConfig RunConfig::from_json(const json::object& object) {
  RunConfig config;
  config.stream = perennial::from_json<StreamOptions>(object.at("stream").as_object());
  config.model = perennial::from_json<ModelOptions>(object.at("model").as_object());
  config.train = perennial::from_json<TrainOptions>(object.at("train").as_object());
  return config;
}

std::vector<std::string> differences(const RunConfig& stored, const RunConfig& asked) {
  std::vector<std::string> fields;
  const json::object a = stored.to_json(), b = asked.to_json();
  for (const auto& section : a) {
    const json::object& other = b.at(section.key()).as_object();
    for (const auto& field : section.value().as_object()) {
      // Where the data lies decides nothing; that they are the same is checked by their digest.
      if (field.key() == "dataset" || field.value() == other.at(field.key())) continue;
      fields.push_back(std::string(section.key()) + "." + std::string(field.key()) + ": " +
                       json::serialize(field.value()) + " stored, " +
                       json::serialize(other.at(field.key())) + " asked for");
    }
  }
  return fields;
}

}  // namespace perennial::continual
