// SPDX-License-Identifier: Apache-2.0
// Everything that decides a run's numbers: stream, model, training.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "perennial/continual/anytime.h"
#include "perennial/continual/strategy_options.h"
#include "perennial/continual/stream.h"
#include "perennial/core/gate.h"
#include "perennial/core/options.h"
#include "perennial/core/peer.h"
#include "perennial/core/sparse_optimizer.h"

namespace perennial::continual {

enum class ModelKind : std::uint8_t { mlp, peer };
EnumNames<ModelKind> enum_names(ModelKind);

struct ModelOptions {
  ModelKind model = ModelKind::peer;
  std::int64_t hidden = 256;
  std::int64_t depth = 2;
  std::int64_t width = 0;
  PeerOptions peer;  // d_in and d_out follow from the stream and width

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("model", self.model, "mlp, or a PEER layer (peer)");
    visitor("hidden", self.hidden, "mlp: width of a hidden layer", Range{1, 65536});
    visitor("depth", self.depth, "mlp: hidden layers", Range{1, 64});
    visitor("width", self.width,
            "peer: 0 = the layer maps inputs to classes; else dense layers to and from this width "
            "around it",
            Range{0, 65536});
    // The layer's own widths follow from the stream and `width`.
    auto but_widths = [&visitor](std::string_view name, auto& value, std::string_view doc,
                                 auto... range) {
      if (name != "d_in" && name != "d_out") visitor(name, value, doc, range...);
    };
    PeerOptions::visit(self.peer, but_widths);
  }
};

enum class OptimizerKind : std::uint8_t { adam, sgd };
EnumNames<OptimizerKind> enum_names(OptimizerKind);

// Update rule of the experts: that of the dense parameters, or one of SparseAlgorithm.
enum class ExpertOptimizer : std::uint8_t { same, sgd, adam, adamw, rowwise_adagrad };
EnumNames<ExpertOptimizer> enum_names(ExpertOptimizer);

enum class GateChoice : std::uint8_t { automatic, oracle, none, analytic };
EnumNames<GateChoice> enum_names(GateChoice);

struct TrainOptions {
  StrategySet strategy = StrategyKind::grow_freeze;
  StrategyOptions strategy_options;
  std::int64_t epochs = 1;
  std::int64_t batch = 256;
  OptimizerKind optimizer = OptimizerKind::adam;
  double lr = 1e-3;
  double expert_lr = 0;
  ExpertOptimizer expert_optimizer = ExpertOptimizer::same;
  double expert_momentum = 0;
  double expert_weight_decay = 0;
  GateChoice gate = GateChoice::automatic;
  AnalyticGateOptions gate_options;
  std::int64_t train_seed = 1;
  std::int64_t commit_every = 200;
  AnytimeOptions anytime;

  // What the experts' optimizer gets.
  SparseOptimizerOptions experts() const;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("strategy", self.strategy,
            "a name that `perennial strategies` lists, or several as grow_freeze+er");
    StrategyOptions::visit(self.strategy_options, visitor);
    visitor("epochs", self.epochs, "passes over each experience", Range{1, 100000});
    visitor("batch", self.batch, "examples a step", Range{1, 1048576});
    visitor(
        "optimizer", self.optimizer,
        "update rule of dense parameters, and of experts unless expert_optimizer says otherwise");
    visitor("lr", self.lr, "learning rate", Range{0, 1e3});
    visitor("expert_lr", self.expert_lr, "learning rate of the experts; 0 = lr", Range{0, 1e3});
    visitor(
        "expert_optimizer", self.expert_optimizer,
        "update rule of the experts: same = optimizer; sgd, adam, adamw (decoupled weight decay) "
        "or rowwise_adagrad (one sum for each of u, v and w)");
    visitor("expert_momentum", self.expert_momentum,
            "momentum of the experts (heavy ball); needs sgd for them", Range{0, 0.999999});
    visitor("expert_weight_decay", self.expert_weight_decay,
            "weight decay of experts that were retrieved: decoupled for adamw, else added to the "
            "gradient (L2)",
            Range{0, 1});
    visitor("gate", self.gate,
            "who picks the generation at test; automatic: analytic for grow_freeze with isolated "
            "routing, else none");
    AnalyticGateOptions::visit(self.gate_options, visitor);
    visitor("train_seed", self.train_seed, "seed of the order of examples", Range{0, 9e15});
    visitor("commit_every", self.commit_every,
            "steps between commits within an experience; 0 = at its end only", Range{0, 1e9});
    AnytimeOptions::visit(self.anytime, visitor);
  }
};

struct RunConfig {
  StreamOptions stream;
  ModelOptions model;
  TrainOptions train;

  // Throws InvalidOptions for a value out of range and for combinations that cannot work
  // (grow_freeze without a pool, a gate without generations to choose from, ...). Touches nothing.
  void validate() const;
  // The gate that `automatic` means here.
  GateKind gate() const;

  // {"stream": {...}, "model": {...}, "train": {...}}
  boost::json::object to_json() const;
  static RunConfig from_json(const boost::json::object& object);

 private:
  void require_reach() const;
  void require_loss_of_tasks() const;
};

// Names of the fields in which two configurations differ, as "train.lr: 0.001 stored, 0.01 asked
// for".
std::vector<std::string> differences(const RunConfig& stored, const RunConfig& asked);

}  // namespace perennial::continual
