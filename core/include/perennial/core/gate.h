// SPDX-License-Identifier: Apache-2.0
// Gates: which generation answers an input when nobody says which.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "perennial/core/dense_entries.h"
#include "perennial/core/fixed_features.h"
#include "perennial/core/generation_gate.h"
#include "perennial/core/options.h"
#include "perennial/storage/page_store.h"

namespace perennial {

struct GateCandidates;

// oracle: the caller gives the generation. none: the newest generation answers. analytic: ridge
// regression from random features to the generation, from streaming statistics. autoencoder: an
// autoencoder a generation, and the smallest reconstruction error (autoencoder_gate.h).
enum class GateKind : std::uint8_t { oracle, none, analytic, autoencoder };
EnumNames<GateKind> enum_names(GateKind);

// What the scores decide. hard: the generation with the best score answers. mixed: the generations'
// probabilities are averaged by the softmax of gate_temperature times the scores.
enum class GateAnswer : std::uint8_t { hard, mixed };
EnumNames<GateAnswer> enum_names(GateAnswer);

struct AnalyticGateOptions {
  std::int64_t features = 1000;
  double ridge = 100;
  std::int64_t gate_seed = 1;
  FeatureKind gate_features = FeatureKind::random;
  std::int64_t gate_filters = 64;
  std::int64_t gate_filter_size = 7;
  std::int64_t gate_grid = 4;
  GateAnswer gate_answer = GateAnswer::hard;
  double gate_temperature = 10;
  double head_weight = 0;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("features", self.features, "random ReLU features of the analytic gate, M",
            Range{1, 16384});
    visitor("ridge", self.ridge,
            "ridge strength of the analytic gate and its class heads; 0 = chosen from their "
            "statistics by generalised cross validation",
            Range{0, 1e12});
    visitor("gate_seed", self.gate_seed, "seed of the gate's random features", Range{0, 9e15});
    visitor("gate_features", self.gate_features,
            "random: `features` projections of the input; convolution: gate_filters x gate_grid^2 "
            "averages of random filters on the image");
    visitor("gate_filters", self.gate_filters, "random filters of convolution features",
            Range{1, 4096});
    visitor("gate_filter_size", self.gate_filter_size, "width of a filter, pixels", Range{1, 64});
    visitor("gate_grid", self.gate_grid, "averages an axis of a filter's responses", Range{1, 64});
    visitor("gate_answer", self.gate_answer,
            "hard: the best generation answers; mixed: their probabilities are averaged by the "
            "softmax of the gate's scores");
    visitor("gate_temperature", self.gate_temperature,
            "factor on the scores in the softmax of a mixed answer", Range{0, 1e6});
    visitor("head_weight", self.head_weight,
            "weight of each generation's analytic class head, a ridge regression from the gate's "
            "features to its classes, beside the pool's log-probabilities; 0 = none",
            Range{0, 1e6});
  }
};

// f(x): fixed features (FixedFeatures), M of them. For each generation g the statistics
// A_g = sum f f' (M, M) and B_g = sum f (M) in double; the weights
// W = (sum_g A_g + ridge I)^-1 [B_0 ... B_G-1], summed in generation order, solved by Cholesky. The
// answer is argmax_g f.W_g over the generations that were observed, ties to the older one (the
// oldest when none was). No replay, no task labels at test. As the router of Tong et al. 2025,
// "Analytic Subspace Routing" (Any-SSR, arXiv 2503.13575), a ridge regression over frozen features
// with an expert a task; there the features are a pretrained language model's, the experts low-rank
// adapters, and recursive least squares keeps one inverse for all tasks. Sums a generation instead
// let one be unlearned, and the strength be chosen from them.
//
// ridge 0: the strength is chosen whenever the weights are solved, from the sums over all
// generations, and for a class head from those of its generation, by generalised cross validation
// (nn/ridge.h): no inputs are kept back.
//
// With head_weight, a generation also has a class head of its own: C_g = sum f y' (M, C) for y one
// of C classes, one hot, and H_g = (A_g + ridge I)^-1 C_g. Nothing that a newer generation observes
// changes it.
//
// An input's scores do not depend on the batch around it. Statistics depend, in rounding, on the
// order and the size of the batches observed. Single-threaded; memory 8 M (M + C) bytes a
// generation, as much again for those that the last commit copied, and 8 M^2 for the sum of the
// older ones, which spares adding them up again.
class AnalyticGate : public GenerationGate {
 public:
  // `classes` counts with head_weight only. Throws InvalidOptions, also as FixedFeatures.
  AnalyticGate(std::int64_t d_in, const AnalyticGateOptions& options, std::int64_t classes = 0,
               ImageShape image = {});
  // As the store's current state has it.
  static AnalyticGate load(const storage::PageReader& store);
  static bool stored_in(const storage::PageReader& store);
  // Takes generations out of the stored gate, as unlearn.h says.
  static void drop_generations_from(const storage::PageReader& store, std::uint32_t keep,
                                    storage::CommitRequest& request);
  static void drop_generation(const storage::PageReader& store, std::uint32_t generation,
                              storage::CommitRequest& request);

  std::int64_t generations() const override {
    return static_cast<std::int64_t>(statistics_.size());
  }
  bool has_heads() const { return classes_ > 0; }
  const AnalyticGateOptions& options() const { return options_; }
  // Adds a generation without statistics.
  void add_generation() override;
  // Adds inputs x: (B, d_in) of a generation, with heads also their classes y: (B) int64. Cost:
  // O(B M (M + d_in)).
  void observe(const at::Tensor& x, std::int64_t generation, const at::Tensor& y = {}) override;
  // Solves for the weights when statistics changed since the last time. Cost: O(M^3), with ridge 0
  // a dozen times that.
  void solve();
  // Solves, where there is something to solve.
  void close() override;
  // The ridge strength in use: the option, or what was chosen. Cost: as solve() at ridge 0.
  double ridge() const;
  // The size of the images that features were made for, {} where they need none.
  ImageShape image() const { return image_; }

  // (B, M) features of inputs x: (B, d_in), for what follows; they cost most of an answer.
  at::Tensor features(const at::Tensor& x) const { return features_(x); }

  // What follows takes features f: (B, M), or makes them from inputs.
  //
  // (B, G) scores and (B) int64 generations; solves first if needed. Throws Error before any
  // generation was observed.
  at::Tensor scores_of(const at::Tensor& f);
  at::Tensor scores(const at::Tensor& x) { return scores_of(features(x)); }
  at::Tensor choose_of(const at::Tensor& f);
  at::Tensor choose(const at::Tensor& x) { return choose_of(features(x)); }
  // (B, G): each generation's share of a mixed answer, the softmax of gate_temperature times the
  // scores over the generations observed. Shares below 1/1024 of the largest are 0, which saves
  // asking generations that hardly count.
  at::Tensor shares_of(const at::Tensor& f);
  at::Tensor shares(const at::Tensor& x) { return shares_of(features(x)); }
  // (B, C): what generation g's class head says, near 1 for its class and near 0 for the others.
  // Throws Error without heads. Cost: O(M^3) the first time after observing g.
  at::Tensor class_scores_of(const at::Tensor& f, std::int64_t generation);
  at::Tensor class_scores(const at::Tensor& x, std::int64_t generation) {
    return class_scores_of(features(x), generation);
  }

  // How foreign x: (B, d_in) is to a generation: the mean leverage f'(A_g + ridge I)^-1 f of its
  // inputs over that of what the generation observed, tr((A_g + ridge I)^-1 A_g) / n_g. Near 1 for
  // inputs like those, whatever their labels; larger for others. Infinite for a generation that
  // observed nothing, or was committed by a version that did not count. Cost: O(M^3).
  double novelty(const at::Tensor& x, std::int64_t generation) const override;

  void add_to_commit(storage::CommitRequest& request) override;
  void committed() override { entries_.committed(); }
  void commit_failed() override { entries_.commit_failed(); }

 private:
  struct Statistics {
    at::Tensor a;            // (M, M) float64; undefined, as b and c, when unlearned
    at::Tensor b;            // (M) float64
    at::Tensor c;            // (M, C) float64; undefined without heads
    std::int64_t count = 0;  // inputs observed
    at::Tensor head = {};    // (C, M) float32, solved; undefined when out of date
    bool observed = false;   // has seen an input: one that has not is never chosen
    bool unlearned = false;  // its sums are gone for good
  };
  // Throws Error for a generation that does not exist or was unlearned.
  const Statistics& of(std::int64_t generation) const;
  // sum_g A_g in generation order, and the number of inputs.
  at::Tensor sum_of_a() const;
  at::Tensor columns_of_b() const;  // (M, G)
  double ridge_of(const Statistics& statistics) const;
  std::int64_t oldest_kept() const;
  GateCandidates who_answers() const;

  std::int64_t d_in_;
  AnalyticGateOptions options_;
  std::int64_t classes_;
  ImageShape image_;
  FixedFeatures features_;
  std::vector<Statistics> statistics_;
  at::Tensor weights_;  // (G, M) float32, solved; undefined when out of date
  // What follows from the statistics alone, kept for the next time.
  mutable at::Tensor older_a_;           // (M, M): sum of A_g for g below older_
  mutable std::size_t older_ = 0;        // generations in it
  mutable std::optional<double> ridge_;  // chosen; empty when out of date
  DenseEntries entries_;
};

}  // namespace perennial
