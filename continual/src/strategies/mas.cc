// SPDX-License-Identifier: Apache-2.0
// Memory aware synapses.
#include <ATen/core/grad_mode.h>

#include "strategies/importance.h"
#include "strategies/quadratic_penalty.h"
#include "strategies/shared_options.h"

namespace perennial::continual {

namespace {

constexpr StrategyOption<double> kMasStrength{
    "mas_strength", 1, "mas: lambda of lambda sum Omega (theta - theta*)^2", Range{0, 1e12}};

// Aljundi et al. 2018, "Memory Aware Synapses" (arXiv 1711.09601), eq. 2 to 4: L = L_ce + lambda
// sum_p Omega_p (theta_p - theta*_p)^2, where each experience adds mean over its examples of
// |d |F(x)|^2 / d theta_p| to Omega, F the logits (no labels are used), and theta* are the newest
// parameters. Default lambda 1 (Hsu et al. 2018, split MNIST, class-incremental; 10000
// domain-incremental, whose sensitivities are of the mean, not the sum, over 10 classes and signed
// within a minibatch). Naive, bit for bit, at lambda = 0.
class MemoryAwareSynapses : public QuadraticPenalty {
 public:
  explicit MemoryAwareSynapses(const StrategyOptions& options)
      : QuadraticPenalty("mas", 2 * options[kMasStrength]), examples_(options[kFisherExamples]) {}

  void after_experience(StrategyContext& context) override {
    if (!on()) return;
    ParameterVector sensitivity =
        output_sensitivity(context.model, context.stream, context.experience, examples_);
    if (importance().defined()) {
      const at::NoGradGuard no_grad;
      sensitivity.flat().add_(importance().flat());
    }
    importance() = std::move(sensitivity);
    anchor().set_values(parameters_of(context.model));
  }

 private:
  std::int64_t examples_;
};

}  // namespace

const StrategyDeclaration& strategies::mas() {
  static const StrategyDeclaration declaration{
      .name = "mas",
      .sort = StrategySort::penalty,
      .description = "memory aware synapses: the same, weighted by the outputs' sensitivity",
      .options = {&kMasStrength, &kFisherExamples},
      .needs = QuadraticPenalty::kNeeds,
      .make = make_one<MemoryAwareSynapses>,
  };
  return declaration;
}

}  // namespace perennial::continual
