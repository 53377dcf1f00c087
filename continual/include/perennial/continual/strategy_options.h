// SPDX-License-Identifier: Apache-2.0
// Which strategy a run has, and the options of all strategies.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/core/options.h"

namespace perennial::continual {

enum class StrategyKind : std::uint8_t {
  naive,
  joint,
  cumulative,
  grow_freeze,
  l2,
  ewc,
  online_ewc,
  si,
  mas,
  lwf,
  er,
  er_ace,
  agem,
  gem,
  der,
  derpp,
  gdumb,
  icarl,
  sparse_slot,
  packnet,
  progressive,
};
EnumNames<StrategyKind> enum_names(StrategyKind);
// One line a strategy: what it does.
std::string_view describe(StrategyKind kind);
// Where it differs from its paper in what it computes, and why; empty where it does not.
std::string_view differs_from_paper(StrategyKind kind);
// Whether it has a loss of its own, or adds to the task's, which is of a step's rows together.
bool has_own_loss(StrategyKind kind);
// Why it cannot do without classes; empty where it can.
std::string_view needs_classes(StrategyKind kind);

// One strategy, or several that work together, written with "+": "grow_freeze+er". At most one of
// each sort composes: growth (grow_freeze), replay (er, er_ace, der, derpp), a penalty on changed
// parameters (l2, ewc, online_ewc, si, mas), distillation (lwf); every other strategy stands alone.
class StrategySet {
 public:
  StrategySet(StrategyKind kind) : kinds_{kind} {}  // NOLINT: a kind is a set of one
  // Throws InvalidOptions for an unknown name (naming the nearest one), a name given twice, or
  // strategies that do not compose. The order of the names does not matter.
  static StrategySet parse(std::string_view field, std::string_view text);
  std::string text() const;

  // Ascending.
  const std::vector<StrategyKind>& kinds() const { return kinds_; }
  bool has(StrategyKind kind) const;
  bool operator==(const StrategySet&) const = default;
  // True if it is this strategy alone.
  bool operator==(StrategyKind kind) const { return kinds_.size() == 1 && kinds_[0] == kind; }

 private:
  std::vector<StrategyKind> kinds_;
};

// How the diagonal of the Fisher information is estimated, all averaged over examples x:
//   exact: sum over classes c of p(c|x) (d log p(c|x) / d theta)^2, the definition;
//   sample: the same with one class drawn from p(.|x), unbiased;
//   empirical: with the true label; not the Fisher information away from the optimum;
//   batched: the square of a minibatch's mean gradient at the true labels, averaged over
//     minibatches (what Avalanche computes); smaller by about the batch size.
enum class FisherKind : std::uint8_t { exact, sample, empirical, batched };
EnumNames<FisherKind> enum_names(FisherKind);

// Which examples a replay memory of M keeps.
//   reservoir: a uniform sample of all seen (Vitter 1985, algorithm R);
//   class_balanced: class-balancing reservoir (Chrysakis & Moens 2020, algorithm 1);
//   ring: the newest floor(M / classes) of each class;
//   greedy: as many of each class as possible, evicting from the largest (GDumb, algorithm 1).
enum class BufferKind : std::uint8_t { reservoir, class_balanced, ring, greedy };
EnumNames<BufferKind> enum_names(BufferKind);

// When a replay memory is filled.
//   stream: with each step's examples, in the first pass over them; knows no boundaries. While an
//     experience is trained, its own examples take more and more of the memory's places.
//   experience: after each experience, with all of its examples and, for der and der++, the logits
//     that the trained model gives them; earlier experiences have the whole memory while one is
//     trained (what Avalanche does).
enum class FillKind : std::uint8_t { stream, experience };
EnumNames<FillKind> enum_names(FillKind);

// When grow_freeze opens a generation. experience: for each experience. drift: when the loss says
// that the stream's distribution has changed (drift.h), for streams without announced boundaries.
enum class GrowthKind : std::uint8_t { experience, drift };
EnumNames<GrowthKind> enum_names(GrowthKind);

// How large a generation of grow_freeze becomes. full: rows x cols experts. need: it opens with
// growth_start columns, which double, up to cols, whenever its loss has stopped falling above
// growth_loss (strategies/growth_size.h).
enum class GrowthSize : std::uint8_t { full, need };
EnumNames<GrowthSize> enum_names(GrowthSize);

// Strengths do not carry over between libraries: each strategy's header states its formula.
struct StrategyOptions {
  double output_regularisation = 0;
  GrowthKind growth = GrowthKind::experience;
  GrowthSize growth_size = GrowthSize::full;
  std::int64_t growth_start = 4;
  double growth_loss = 0.5;
  std::int64_t growth_window = 50;
  double drift_threshold = 3;
  std::int64_t drift_steps = 3;
  std::int64_t drift_window = 50;
  double l2_strength = 0.5;
  double ewc_strength = 1200;
  double online_ewc_strength = 200;
  double ewc_gamma = 1;
  FisherKind fisher = FisherKind::sample;
  std::int64_t fisher_examples = 0;
  double si_strength = 600;
  double si_damping = 0.1;
  double mas_strength = 1;
  double lwf_strength = 1;
  double lwf_temperature = 2;
  std::int64_t memory = 500;
  BufferKind buffer = BufferKind::reservoir;
  FillKind memory_fill = FillKind::stream;
  std::int64_t replay_batch = 0;
  double der_alpha = 0.1;
  double der_beta = 0.5;
  std::int64_t task_memory = 256;
  double gem_margin = 0.5;
  std::int64_t gdumb_epochs = 50;
  std::int64_t update_slots = 64;
  double packnet_prune = 0.75;
  std::int64_t packnet_retrain = 0;
  std::int64_t strategy_seed = 1;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("output_regularisation", self.output_regularisation,
            "grow_freeze with shared routing: weight of distilling the layer as it was before the "
            "experience",
            Range{0, 1e6});
    visitor("growth", self.growth,
            "grow_freeze: a generation for each experience, or for each drift that the loss shows");
    visitor("growth_size", self.growth_size,
            "grow_freeze: a generation has all rows x cols experts from the start (full), or "
            "growth_start columns that double when its loss asks for more (need)");
    visitor("growth_start", self.growth_start, "growth_size need: columns of a new generation",
            Range{1, 4294967295.});
    visitor(
        "growth_loss", self.growth_loss,
        "growth_size need: mean loss of the last growth_window steps above which a generation's "
        "columns double, once it has stopped falling",
        Range{0, 1e6});
    visitor("growth_window", self.growth_window,
            "growth_size need: steps between two looks at the loss", Range{1, 1e9});
    visitor(
        "drift_threshold", self.drift_threshold,
        "growth drift: a batch is suspicious when its loss is so many deviations above the mean",
        Range{0.1, 1e6});
    visitor("drift_steps", self.drift_steps,
            "growth drift: suspicious batches in a row that decide", Range{1, 1000});
    visitor("drift_window", self.drift_window,
            "growth drift: batches that mean and deviation are taken over, and before which no "
            "drift is seen",
            Range{2, 1e6});
    visitor("l2_strength", self.l2_strength, "l2: lambda of lambda |theta - theta*|^2",
            Range{0, 1e12});
    visitor("ewc_strength", self.ewc_strength,
            "ewc: lambda of lambda/2 sum F (theta - theta*)^2 (libraries that drop the 1/2 call "
            "half of it lambda)",
            Range{0, 1e12});
    visitor("online_ewc_strength", self.online_ewc_strength,
            "online_ewc: lambda of lambda/2 sum F (theta - theta*)^2", Range{0, 1e12});
    visitor("ewc_gamma", self.ewc_gamma, "online_ewc: decay of older Fisher information",
            Range{0, 1});
    visitor("fisher", self.fisher,
            "ewc: exact (expectation over classes), sample (a class drawn), empirical (true "
            "labels) or batched (squared minibatch means, true labels)");
    visitor("fisher_examples", self.fisher_examples,
            "ewc, mas: training examples of an experience to estimate importances from, 0 = all",
            Range{0, 1e9});
    visitor("si_strength", self.si_strength, "si: c of c sum Omega (theta - theta*)^2",
            Range{0, 1e12});
    visitor("si_damping", self.si_damping, "si: xi, keeps importances finite", Range{1e-12, 1e6});
    visitor("mas_strength", self.mas_strength, "mas: lambda of lambda sum Omega (theta - theta*)^2",
            Range{0, 1e12});
    visitor("lwf_strength", self.lwf_strength, "lwf: weight of the distillation loss",
            Range{0, 1e6});
    visitor("lwf_temperature", self.lwf_temperature, "lwf: temperature of the distillation",
            Range{0.01, 1e3});
    visitor("memory", self.memory, "examples kept for replay, M", Range{0, 1e8});
    visitor("buffer", self.buffer, "which examples the replay memory keeps");
    visitor("memory_fill", self.memory_fill,
            "when the replay memory is filled: stream (with each step's examples) or experience "
            "(after each experience)");
    visitor("replay_batch", self.replay_batch,
            "replayed examples a step (der++ replays two such samples); 0 = batch",
            Range{0, 1048576});
    visitor("der_alpha", self.der_alpha, "der, der++: weight of the logits' squared error",
            Range{0, 1e6});
    visitor("der_beta", self.der_beta, "der++: weight of the replayed labels' cross entropy",
            Range{0, 1e6});
    visitor("task_memory", self.task_memory, "gem, agem: examples kept of each experience",
            Range{0, 1e8});
    visitor("gem_margin", self.gem_margin, "gem: gamma, added to the dual solution", Range{0, 1e3});
    visitor("gdumb_epochs", self.gdumb_epochs, "gdumb: passes over the memory", Range{1, 100000});
    visitor("update_slots", self.update_slots,
            "sparse_slot: experts that a step updates, t; 0 = all, and the router", Range{0, 1e9});
    visitor("packnet_prune", self.packnet_prune,
            "packnet: share of an experience's weights that is pruned and left to later ones",
            Range{0, 0.999});
    visitor("packnet_retrain", self.packnet_retrain,
            "packnet: passes that retrain what was kept; 0 = half of epochs, rounded up",
            Range{0, 100000});
    visitor("strategy_seed", self.strategy_seed, "seed of what a strategy draws", Range{0, 9e15});
  }
};

// Columns that a new generation opens with; 0 = as the model's options say.
std::int64_t first_columns(const StrategyOptions& options);

// Names of the options above that a run with these strategies reads.
std::vector<std::string> options_of(const StrategySet& strategies);

}  // namespace perennial::continual
