// SPDX-License-Identifier: Apache-2.0
// Gates: which generation answers an input when nobody says which.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "perennial/core/options.h"
#include "perennial/storage/page_store.h"

namespace perennial {

// oracle: the caller gives the generation. none: the newest generation answers. analytic: ridge
// regression from random features to the generation, from streaming statistics.
enum class GateKind : std::uint8_t { oracle, none, analytic };
EnumNames<GateKind> enum_names(GateKind);

struct AnalyticGateOptions {
  std::int64_t features = 1000;
  double ridge = 100;
  std::int64_t gate_seed = 1;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("features", self.features, "random ReLU features of the analytic gate, M",
            Range{1, 16384});
    visitor("ridge", self.ridge, "ridge strength of the analytic gate", Range{1e-9, 1e12});
    visitor("gate_seed", self.gate_seed, "seed of the gate's random features", Range{0, 9e15});
  }
};

// f(x) = relu(R x + r), R: (M, d_in) ~ N(0, 1/d_in), r: (M) ~ N(0, 1), frozen, from the seed. For
// each generation g the statistics A_g = sum f f' (M, M) and B_g = sum f (M) in double; the
// weights W = (sum_g A_g + ridge I)^-1 [B_0 ... B_G-1], summed in generation order, solved by
// Cholesky. The answer is argmax_g f.W_g over the generations that were observed, ties to the older
// one (the oldest when none was). No replay, no task labels
// at test. Analytic continual learning by recursive least squares: Zhuang et al. 2022 (ACIL).
//
// An input's scores do not depend on the batch around it. Statistics depend, in rounding, on the
// order and the size of the batches observed. Single-threaded; memory 8 M^2 bytes a generation.
class AnalyticGate {
 public:
  AnalyticGate(std::int64_t d_in, const AnalyticGateOptions& options);
  // As the store's current state has it.
  static AnalyticGate load(const storage::PageReader& store);

  std::int64_t generations() const { return static_cast<std::int64_t>(statistics_.size()); }
  // Adds a generation without statistics.
  void add_generation();
  // Adds inputs x: (B, d_in) of a generation. Cost: O(B M (M + d_in)).
  void observe(const at::Tensor& x, std::int64_t generation);
  // Solves for the weights when statistics changed since the last time. Cost: O(M^3).
  void solve();

  // (B, G) scores and (B) int64 generations; solves first if needed. Throws Error before any
  // generation was observed.
  at::Tensor scores(const at::Tensor& x);
  at::Tensor choose(const at::Tensor& x);

  // Adds what changed since the last commit, as it is now; call committed() when it succeeded and
  // commit_failed() when not. Observing may go on between.
  void add_to_commit(storage::CommitRequest& request);
  void committed();
  void commit_failed();

 private:
  struct Statistics {
    at::Tensor a;           // (M, M) float64
    at::Tensor b;           // (M) float64
    bool observed = false;  // has seen an input: one that has not is never chosen
    bool changed = true;     // since it was last offered to a commit
    bool offered = false;    // to the commit in flight
  };
  at::Tensor random_features(const at::Tensor& x) const;  // (B, M)

  std::int64_t d_in_;
  AnalyticGateOptions options_;
  at::Tensor projection_;  // (M, d_in)
  at::Tensor bias_;        // (M)
  std::vector<Statistics> statistics_;
  at::Tensor weights_;  // (G, M) float32, solved; undefined when out of date
};

}  // namespace perennial
