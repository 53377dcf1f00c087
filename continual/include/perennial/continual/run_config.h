// SPDX-License-Identifier: Apache-2.0
// Everything that decides a run's numbers: stream, model, training.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "perennial/continual/anytime.h"
#include "perennial/continual/strategy_declaration.h"
#include "perennial/continual/stream.h"
#include "perennial/continual/task_kind.h"
#include "perennial/core/amp.h"
#include "perennial/core/autoencoder_gate.h"
#include "perennial/core/gate.h"
#include "perennial/core/options.h"
#include "perennial/core/peer.h"
#include "perennial/core/sparse_optimizer.h"

namespace perennial::continual {

enum class ModelKind : std::uint8_t { mlp, peer };
EnumNames<ModelKind> enum_names(ModelKind);

// trained: the model's own output. analytic: ridge regression over features that never change, from
// streaming statistics (AnalyticHead), so that classes may come in turn.
enum class HeadKind : std::uint8_t { trained, analytic };
EnumNames<HeadKind> enum_names(HeadKind);

// What an analytic head reads. filters: the responses of fixed random filters of an image, and the
// output of a PEER layer. columns: the inputs themselves and fixed random functions of them, for
// tables and other inputs that are no images. automatic: filters of images, columns of the others.
enum class HeadInputs : std::uint8_t { automatic, filters, columns };
EnumNames<HeadInputs> enum_names(HeadInputs);

// What the first layer of a dense model reads. raw: the data's features. filters: the responses of
// the fixed random filters that an analytic head reads, so that both learn from the same numbers.
enum class InputKind : std::uint8_t { raw, filters };
EnumNames<InputKind> enum_names(InputKind);

struct ModelOptions {
  ModelKind model = ModelKind::peer;
  InputKind inputs = InputKind::raw;
  std::int64_t hidden = 256;
  std::int64_t depth = 2;
  std::int64_t width = 0;
  std::int64_t spare_classes = 0;
  HeadKind head = HeadKind::trained;
  HeadInputs head_inputs = HeadInputs::automatic;
  std::int64_t head_width = 1024;
  double head_ridge = 1;
  std::int64_t head_filters = 384;
  std::int64_t head_filter_size = 7;
  std::int64_t head_grid = 4;
  std::int64_t head_pool = 1024;
  double dropout = 0;
  std::int64_t seed = 1;
  PeerOptions peer;  // but for its widths, dropout and seed

  // The options of a PEER layer between these widths.
  PeerOptions layer(std::int64_t d_in, std::int64_t d_out) const;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("model", self.model, "mlp, or a PEER layer (peer)");
    visitor("inputs", self.inputs,
            "mlp: what its first layer reads: raw (the data's features) or filters (the responses "
            "of the fixed random filters that an analytic head reads)");
    visitor("hidden", self.hidden, "mlp: width of a hidden layer", Range{1, 65536});
    visitor("depth", self.depth, "mlp: hidden layers; 0 = a linear classifier", Range{0, 64});
    visitor("width", self.width,
            "peer: 0 = the layer maps inputs to classes; else dense layers to and from this width "
            "around it",
            Range{0, 65536});
    visitor("spare_classes", self.spare_classes,
            "peer of width 0, whose experts answer with the classes themselves: outputs to keep "
            "free for classes that further data may bring",
            Range{0, 65536});
    visitor("head", self.head,
            "peer: trained, or analytic: the classes are solved from statistics over features that "
            "never change, and nothing trains by gradient. A new regression over one table is "
            "analytic where nothing of a model is chosen");
    visitor("head_inputs", self.head_inputs,
            "what the analytic head reads: filters (random convolutions of the image, and the "
            "layer's output), columns (the inputs themselves and random functions of them, without "
            "a layer) or automatic: filters of images, columns of tables and other inputs");
    visitor("head_width", self.head_width,
            "random functions of columns that the head may read; how many it does, and its ridge "
            "strength, is chosen from its statistics by generalised cross validation",
            Range{1, 16384});
    visitor("head_ridge", self.head_ridge,
            "ridge strength of the analytic head over filters; 0 = chosen from its statistics by "
            "generalised cross validation",
            Range{0, 1e12});
    visitor(
        "head_filters", self.head_filters,
        "random filters whose responses the analytic head, or an mlp with inputs filters, reads; 0 "
        "= none",
        Range{0, 4096});
    visitor("head_filter_size", self.head_filter_size, "width of such a filter, pixels",
            Range{1, 64});
    visitor("head_grid", self.head_grid, "averages an axis of a filter's responses", Range{1, 64});
    visitor("head_pool", self.head_pool,
            "width of the layer's output that the analytic head reads; 0 = the head without the "
            "pool, for comparison",
            Range{0, 65536});
    visitor("dropout", self.dropout,
            "probability that training leaves out, of an mlp, a hidden unit; of a PEER layer, a "
            "retrieved expert of a token's sum",
            Range{0, 0.99});
    visitor("seed", self.seed, "seed of the initial values and of dropout", Range{0, 9e15});
    visitor.group("peer", [&self](OptionVisitor& inner) {
      ExceptVisitor but_those(inner, {"d_in", "d_out", "dropout", "seed"});
      PeerOptions::visit(self.peer, static_cast<OptionVisitor&>(but_those));
    });
  }
};

enum class OptimizerKind : std::uint8_t { adam, sgd, adamw };
EnumNames<OptimizerKind> enum_names(OptimizerKind);

// Update rule of the experts: that of the dense parameters, or one of SparseAlgorithm.
enum class ExpertOptimizer : std::uint8_t { same, sgd, adam, adamw, rowwise_adagrad };
EnumNames<ExpertOptimizer> enum_names(ExpertOptimizer);

// The learning rate's course within an experience of n steps, at step k from 0: lr times 1, 1 -
// k/n, or (1 + cos(pi k/n)) / 2. A function of the position, so a resumed run goes on exactly.
enum class LrSchedule : std::uint8_t { constant, linear, cosine };
EnumNames<LrSchedule> enum_names(LrSchedule);
// The factor on all learning rates. 0 <= step < steps.
double lr_factor(LrSchedule schedule, std::int64_t step, std::int64_t steps);
// That of the start of an experience: rises from 1 / warmup at step 0 to 1, in equal parts.
double warmup_factor(std::int64_t step, std::int64_t warmup);

enum class GateChoice : std::uint8_t { automatic, oracle, none, analytic, autoencoder };
EnumNames<GateChoice> enum_names(GateChoice);

struct TrainOptions {
  StrategySet strategy = "grow_freeze";
  StrategyOptions strategy_options;
  std::int64_t epochs = 1;
  std::int64_t batch = 256;
  std::int64_t micro_batch = 0;
  OptimizerKind optimizer = OptimizerKind::adam;
  double weight_decay = 0;
  double clip_norm = 0;
  Amp amp = Amp::off;
  double lr = 1e-3;
  double router_lr = 0;
  double expert_lr = 0;
  LrSchedule lr_schedule = LrSchedule::constant;
  std::int64_t warmup = 0;
  ExpertOptimizer expert_optimizer = ExpertOptimizer::same;
  double expert_momentum = 0;
  double expert_weight_decay = 0;
  GateChoice gate = GateChoice::automatic;
  AnalyticGateOptions gate_options;
  AutoencoderGateOptions autoencoder_options;
  double return_novelty = 0;
  std::int64_t return_examples = 512;
  std::int64_t train_seed = 1;
  std::int64_t commit_every = 200;
  AnytimeOptions anytime;

  // What the experts' optimizer gets.
  SparseOptimizerOptions experts() const;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("strategy", self.strategy,
            "a name that `perennial strategies` lists, or several as grow_freeze+er");
    visitor.group("strategy_options", self.strategy_options);
    visitor("epochs", self.epochs, "passes over each experience", Range{1, 100000});
    visitor("batch", self.batch, "examples a step", Range{1, 1048576});
    visitor("micro_batch", self.micro_batch,
            "rows of a step that one forward and backward takes, gradients adding up, for less "
            "memory; 0 = all at once. Answers and losses keep their bits; sums over rows in dense "
            "gradients are cut otherwise, and round so",
            Range{0, 1048576});
    visitor(
        "optimizer", self.optimizer,
        "update rule of dense parameters, and of experts unless expert_optimizer says otherwise");
    visitor("weight_decay", self.weight_decay,
            "decoupled weight decay of dense parameters; needs optimizer adamw. Experts have "
            "expert_weight_decay",
            Range{0, 1});
    visitor("clip_norm", self.clip_norm,
            "where the norm of a step's gradient, over dense parameters and experts together, is "
            "larger, it is scaled down to this; 0 = never",
            Range{0, 1e12});
    visitor("amp", self.amp,
            "bf16: products of dense layers and of the pool's query network round what they read "
            "and write to bfloat16, and those of queries with sub-keys what they read, in training "
            "and in answers; weights, experts, sums, norms and loss stay float32");
    visitor("lr", self.lr, "learning rate", Range{0, 1e3});
    visitor("router_lr", self.router_lr,
            "learning rate of the pool's router: query network, norm and sub-keys; 0 = lr",
            Range{0, 1e3});
    visitor("expert_lr", self.expert_lr, "learning rate of the experts; 0 = lr", Range{0, 1e3});
    visitor("lr_schedule", self.lr_schedule,
            "within each experience: constant, linear to 0, or half a cosine to 0");
    visitor("warmup", self.warmup,
            "steps at the start of each experience over which learning rates rise in equal parts",
            Range{0, 1e9});
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
    visitor.group("analytic_gate", self.gate_options);
    visitor.group("autoencoder_gate", self.autoencoder_options);
    visitor("return_novelty", self.return_novelty,
            "grow_freeze: an experience whose first inputs are less foreign than this to what a "
            "frozen generation learnt (1 = as its own, by the gate's statistics) returns to it "
            "instead of growing; 0 = always grow",
            Range{0, 1e6});
    visitor("return_examples", self.return_examples, "how many first inputs decide that",
            Range{1, 1e6});
    visitor("train_seed", self.train_seed, "seed of the order of examples", Range{0, 9e15});
    visitor("commit_every", self.commit_every,
            "steps between commits within an experience; 0 = at its end only", Range{0, 1e9});
    visitor.group("anytime", self.anytime);
  }
};

struct RunConfig {
  StreamOptions stream;
  ModelOptions model;
  TrainOptions train;

  // Throws InvalidOptions for a value out of range and for combinations that cannot work
  // (grow_freeze without a pool, a gate without generations to choose from, ...). Touches nothing.
  void validate() const;
  TaskKind task() const { return stream.table.task; }
  // The gate: what `automatic` means here, or what was asked for.
  GateKind gate() const;
  // True when the strategy answers only when told which experience an input is from.
  bool needs_experience() const;

  // Columns that a new generation opens with; 0 = as the model's options say.
  std::int64_t first_columns() const;
  // Options that this run would not look at whatever they are, and what they would need.
  std::vector<UnreadOptions> unread() const;

  // {"stream": {...}, "model": {...}, "train": {...}} with all options, flat in their section.
  boost::json::object settings() const;
  // The same as a store keeps it. Options that there were not always are left out at their
  // defaults: what was learnt before keeps its digest.
  boost::json::object to_json() const;
  // Of any form, with groups or flat (JsonForm). What is absent has its default. Throws
  // InvalidOptions for unknown keys, naming the nearest, and values of another type.
  static RunConfig from_json(const boost::json::object& object);

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor.group("stream", self.stream);
    visitor.group("model", self.model);
    visitor.group("train", self.train);
  }

 private:
  void validate_strategies() const;
  void validate_spare_classes() const;
  void validate_head() const;
  void validate_dense() const;
  void validate_regression() const;
  void validate_training() const;
};

// Names of the fields in which two configurations differ, as "train.lr: 0.001 stored, 0.01 asked
// for".
std::vector<std::string> differences(const RunConfig& stored, const RunConfig& asked);
// Throws InvalidOptions "`what`; FIELD; FIELD; `remedy`" unless `fields` is empty.
void refuse_differing(const std::string& what, const std::vector<std::string>& fields,
                      const std::string& remedy);

}  // namespace perennial::continual
