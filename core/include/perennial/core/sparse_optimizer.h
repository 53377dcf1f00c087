// SPDX-License-Identifier: Apache-2.0
// The optimizer of the experts: touches only those that were retrieved since its last step.
#pragma once

#include <cstdint>
#include <memory>

#include "perennial/core/options.h"
#include "perennial/core/pool.h"
#include "perennial/kernels/optimizer.h"

namespace perennial {

namespace kernels {
EnumNames<UpdateAlgorithm> enum_names(UpdateAlgorithm);
}  // namespace kernels

// sgd, adam, adamw, rowwise_adagrad: see kernels/optimizer.h for the formulas.
using SparseAlgorithm = kernels::UpdateAlgorithm;

struct SparseOptimizerOptions {
  SparseAlgorithm algorithm = SparseAlgorithm::adam;
  double lr = 1e-3;
  double momentum = 0;
  bool nesterov = false;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  // As in torch.optim: decoupled for adamw, added to the gradient (L2) for the others. Acts on
  // touched experts only.
  double weight_decay = 0;

  // Throws InvalidOptions for a value out of range, momentum without sgd, nesterov without
  // momentum.
  void validate() const;

  template <class Self, class Visitor>
  static void visit(Self& self, Visitor& visitor) {
    visitor("algorithm", self.algorithm,
            "update rule of the experts: sgd, adam, adamw (decoupled weight decay) or "
            "rowwise_adagrad (one sum for each of u, v and w)");
    visitor("lr", self.lr, "learning rate of the experts", Range{0, 1e3});
    visitor("momentum", self.momentum, "sgd's momentum (heavy ball); 0 = none and no state",
            Range{0, 0.999999});
    visitor("nesterov", self.nesterov, "Nesterov's form of the momentum");
    visitor("beta1", self.beta1, "Adam's decay of the first moment", Range{0, 0.999999});
    visitor("beta2", self.beta2, "Adam's decay of the second moment", Range{0, 0.999999999});
    visitor("eps", self.eps, "epsilon of Adam and Adagrad", Range{1e-30, 1});
    visitor("weight_decay", self.weight_decay,
            "weight decay of touched experts: decoupled for adamw, else added to the gradient (L2)",
            Range{0, 1});
  }
};

// Touched means retrieved, also with a zero gradient; an expert that was not retrieved keeps
// weights, state and step count. State and the step count (uint32) live in fp32 in the pool's state
// pages, so they are paged and committed with it and dropped when their generation freezes; with
// them the fp32 master of bf16 weights, which steps change and which is then rounded to the nearest
// bf16 (ties to even). Each expert has its own step count: an Adam step of expert e uses e's for
// the bias correction. The bits depend on neither the thread count, nor the page size, nor the
// budget.
class SparseOptimizer {
 public:
  // Throws InvalidOptions, also when the pool holds state of another size. Rules that share a size:
  // adam and adamw; with bf16 weights also sgd without momentum, which keeps the master and counts
  // steps, and rowwise_adagrad, whose sums are zero then.
  SparseOptimizer(Pool& pool, const SparseOptimizerOptions& options);
  SparseOptimizer(const SparseOptimizer&) = delete;
  SparseOptimizer& operator=(const SparseOptimizer&) = delete;

  // Applies the gathered gradients and clears them. Gradients are summed per expert as the update
  // goes, never materialised together. Cost: O(experts touched), each one's weights and state read
  // and written once. May do I/O; when that fails some experts are updated and others not: go back
  // to the last commit, do not repeat the step.
  void step();
  // Applies gradients that the caller read with Pool::compact_gradient() and perhaps changed; the
  // same bits as step() when it did not. Clears the gathered ones. Throws Error for experts that
  // are not in the open generation.
  void step(const CompactGradient& gradient);

  const SparseOptimizerOptions& options() const { return options_; }
  void set_lr(double lr) { options_.lr = lr; }
  // Experts updated so far, over all steps. Waits for the device of the pool, if it has one.
  std::uint64_t experts_updated() const;

 private:
  void count(const at::Tensor& experts);

  Pool& pool_;
  SparseOptimizerOptions options_;
  at::Tensor updated_;  // (1) int64, where the experts live
};

}  // namespace perennial
