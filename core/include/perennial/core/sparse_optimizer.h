// SPDX-License-Identifier: Apache-2.0
// The optimizer of the experts: touches only those that were retrieved since its last step.
#pragma once

#include <cstdint>

#include "perennial/core/options.h"
#include "perennial/core/pool.h"

namespace perennial {

enum class SparseAlgorithm : std::uint8_t { sgd, adam };
EnumNames<SparseAlgorithm> enum_names(SparseAlgorithm);

struct SparseOptimizerOptions {
  SparseAlgorithm algorithm = SparseAlgorithm::adam;
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  // Decoupled for Adam (AdamW), added to the gradient for SGD; acts on touched experts only.
  double weight_decay = 0;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("algorithm", self.algorithm, "update rule of the experts");
    visitor("lr", self.lr, "learning rate of the experts", Range{0, 1e3});
    visitor("beta1", self.beta1, "Adam's decay of the first moment", Range{0, 0.999999});
    visitor("beta2", self.beta2, "Adam's decay of the second moment", Range{0, 0.999999999});
    visitor("eps", self.eps, "Adam's epsilon", Range{1e-30, 1});
    visitor("weight_decay", self.weight_decay, "weight decay of touched experts", Range{0, 1});
  }
};

// Sparse SGD and Adam. Touched means retrieved, also with a zero gradient; an expert that was not
// retrieved keeps weights, moments and step count. Moments and the step count (uint32) live in the
// pool's state pages, so they are paged and committed with it and dropped when their generation
// freezes; with them the fp32 master of bf16 weights, which steps change and which is then rounded
// to the nearest bf16 (ties to even). An Adam step of expert e uses e's own step count for the bias
// correction.
class SparseOptimizer {
 public:
  // Throws InvalidOptions, also when the pool holds another algorithm's state.
  SparseOptimizer(Pool& pool, const SparseOptimizerOptions& options);

  // Applies the gathered gradients and clears them. Gradients are summed per expert as the update
  // goes, never materialised together. Cost: O(experts touched). May do I/O; when that fails some
  // experts are updated and others not: go back to the last commit, do not repeat the step.
  void step();
  // Applies gradients that the caller read with Pool::compact_gradient() and perhaps changed; the
  // same bits as step() when it did not. Clears the gathered ones. Throws Error for experts that
  // are not in the open generation.
  void step(const CompactGradient& gradient);

  const SparseOptimizerOptions& options() const { return options_; }
  void set_lr(double lr) { options_.lr = lr; }
  // Experts updated so far, over all steps.
  std::uint64_t experts_updated() const { return experts_updated_; }

 private:
  void update(std::int64_t id, const float* gradient);

  Pool& pool_;
  SparseOptimizerOptions options_;
  std::uint64_t experts_updated_ = 0;
};

}  // namespace perennial
