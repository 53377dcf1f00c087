// SPDX-License-Identifier: Apache-2.0
// Synaptic intelligence.
#include <ATen/core/grad_mode.h>

#include "strategies/quadratic_penalty.h"

namespace perennial::continual {

namespace {

constexpr StrategyOption<double> kSiStrength{
    "si_strength", 600, "si: c of c sum Omega (theta - theta*)^2", Range{0, 1e12}};
constexpr StrategyOption<double> kSiDamping{"si_damping", 0.1, "si: xi, keeps importances finite",
                                            Range{1e-12, 1e6}};

// Zenke et al. 2017, "Continual Learning Through Synaptic Intelligence" (arXiv 1703.04200), eq. 3
// to 5: L = L_ce + c sum_p Omega_p (theta_p - theta*_p)^2, where each experience adds max(w_p, 0) /
// ((theta_p - theta*_p)^2 + xi) to Omega, w_p = -sum over its steps of g_p dtheta_p with g the
// gradient of the loss without the penalty, and theta* the parameters at its start. (The
// paper has no max: a negative w would reward change.) Defaults: c 600 (Hsu et al. 2018, split
// MNIST, class-incremental; 300 task-, 3000 domain-incremental), xi .1. Naive, bit for bit, at c =
// 0. State 3 P, 2 P more within a step.
class SynapticIntelligence : public QuadraticPenalty {
 public:
  explicit SynapticIntelligence(const StrategyOptions& options)
      : QuadraticPenalty("si", 2 * options[kSiStrength]), damping_(options[kSiDamping]) {}

  void before_experience(StrategyContext& context) override {
    if (!on()) return;
    const std::vector<torch::Tensor> parameters = parameters_of(context.model);
    path_.set_zero(parameters);
    anchor().set_values(parameters);
  }

  void after_backward(StrategyContext& context, const TrainingBatch& batch) override {
    if (!on()) return;
    const std::vector<torch::Tensor> parameters = parameters_of(context.model);
    gradient_.set_gradients(parameters);
    before_.set_values(parameters);
    QuadraticPenalty::after_backward(context, batch);
  }

  void after_step(StrategyContext& context, const TrainingBatch&) override {
    if (!on()) return;
    const at::NoGradGuard no_grad;
    ParameterVector now;
    now.set_values(parameters_of(context.model));
    path_.flat().addcmul_(gradient_.flat(), now.flat() - before_.flat(), -1);
  }

  void after_experience(StrategyContext& context) override {
    if (!on()) return;
    const at::NoGradGuard no_grad;
    const std::vector<torch::Tensor> parameters = parameters_of(context.model);
    ParameterVector now;
    now.set_values(parameters);
    const torch::Tensor moved = now.flat() - anchor().flat();
    if (!importance().defined()) importance().set_zero(parameters);
    importance().flat().add_(path_.flat().clamp_min(0) / (moved * moved + damping_));
    anchor() = std::move(now);
    path_.reset();
  }

  void visit_state(StateVisitor& visitor) override {
    QuadraticPenalty::visit_state(visitor);
    path_.visit(visitor, name() + "/path");
  }

 private:
  double damping_;
  ParameterVector path_;  // w, of the experience under way
  // Of the step under way.
  ParameterVector gradient_;
  ParameterVector before_;
};

}  // namespace

const StrategyDeclaration& strategies::si() {
  static const StrategyDeclaration declaration{
      .name = "si",
      .sort = StrategySort::penalty,
      .description =
          "synaptic intelligence: the same, weighted by what each parameter did for the loss on "
          "its way",
      .options = {&kSiStrength, &kSiDamping},
      .needs = QuadraticPenalty::kNeeds,
      .differs =
          "what a parameter did counts only where it lowered the loss: a negative importance would "
          "reward change",
      .make = make_one<SynapticIntelligence>,
  };
  return declaration;
}

}  // namespace perennial::continual
