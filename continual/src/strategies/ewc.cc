// SPDX-License-Identifier: Apache-2.0
// Elastic weight consolidation, and its online form.
#include <ATen/core/grad_mode.h>

#include "strategies/importance.h"
#include "strategies/quadratic_penalty.h"
#include "strategies/shared_options.h"

namespace perennial::continual {

namespace {

constexpr StrategyOption<double> kEwcStrength{
    "ewc_strength", 1200,
    "ewc: lambda of lambda/2 sum F (theta - theta*)^2 (libraries that drop the 1/2 call half of it "
    "lambda)",
    Range{0, 1e12}};
constexpr StrategyOption<double> kOnlineEwcStrength{
    "online_ewc_strength", 200, "online_ewc: lambda of lambda/2 sum F (theta - theta*)^2",
    Range{0, 1e12}};
constexpr StrategyOption<double> kEwcGamma{
    "ewc_gamma", 1, "online_ewc: decay of older Fisher information", Range{0, 1}};
constexpr StrategyOption<FisherKind> kFisher{
    "fisher", FisherKind::sample,
    "ewc: exact (expectation over classes), sample (a class drawn), empirical (true labels) or "
    "batched (squared minibatch means, true labels)"};

// Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks" (arXiv
// 1612.00796), eq. 3, the 1/2 included: L = L_ce + lambda/2 sum_t sum_p F_t,p (theta_p -
// theta_t,p)^2 over all earlier experiences t, with F_t the diagonal Fisher information at theta_t
// averaged over its training examples (FisherKind says how). Sums of quadratics with their own
// centres are one quadratic with importance F = sum F_t and centre sum F_t theta_t / F, so memory
// and step cost do not grow with the experiences: 2 P. Default lambda 1200: Hsu et al. 2018 (arXiv
// 1810.12488) publish 600 for split MNIST, class-incremental, of a form without the 1/2; 200 is
// their 100 for task- and domain-incremental. Naive, bit for bit, at lambda = 0.
class Ewc : public QuadraticPenalty {
 public:
  explicit Ewc(const StrategyOptions& options) : Ewc("ewc", options[kEwcStrength], options) {}

  void after_experience(StrategyContext& context) override {
    if (!on()) return;
    ParameterVector fisher = fisher_information(
        context.model, context.stream, context.experience,
        {options_[kFisher], options_[kFisherExamples], context.config.train.batch}, labels_);
    ParameterVector now;
    now.set_values(parameters_of(context.model));
    consolidate(fisher, now);
  }

  void visit_state(StateVisitor& visitor) override {
    QuadraticPenalty::visit_state(visitor);
    labels_.visit(visitor, name() + "/labels_drawn");
  }

 protected:
  Ewc(std::string name, double strength, const StrategyOptions& options)
      : QuadraticPenalty(std::move(name), strength),
        options_(options),
        labels_(options[kStrategySeed], LaneUse::fisher_sample) {}

  virtual void consolidate(ParameterVector& fisher, ParameterVector& now) {
    if (!importance().defined()) {
      importance() = std::move(fisher);
      anchor() = std::move(now);
      return;
    }
    const at::NoGradGuard no_grad;
    // centre += F_t / (F + F_t) (theta_t - centre); where both are 0 the centre is irrelevant.
    const torch::Tensor total = importance().flat() + fisher.flat();
    const torch::Tensor share = (fisher.flat() / total).nan_to_num_(0, 0, 0);
    anchor().flat().add_(share.mul_(now.flat() - anchor().flat()));
    importance().flat().copy_(total);
  }

  const StrategyOptions& options() const { return options_; }

 private:
  StrategyOptions options_;
  StateRandom labels_;
};

// Schwarz et al. 2018, "Progress & Compress" (arXiv 1805.06370), eq. 9, section 3.2: one Fisher
// information F* <- gamma F* + F_t and the newest parameters as the only centre: L = L_ce +
// lambda/2 sum F*_p (theta_p - theta_t-1,p)^2. The paper also normalises each F_t, so that tasks
// whose rewards have other scales count alike; here it is as it is, for which strengths are
// published. Defaults: lambda 200 (Hsu et al.'s 100 for class-incremental split MNIST, without the
// 1/2), gamma 1. Naive, bit for bit, at lambda = 0.
class OnlineEwc : public Ewc {
 public:
  explicit OnlineEwc(const StrategyOptions& options)
      : Ewc("online_ewc", options[kOnlineEwcStrength], options) {}

 protected:
  void consolidate(ParameterVector& fisher, ParameterVector& now) override {
    if (importance().defined()) {
      const at::NoGradGuard no_grad;
      fisher.flat().add_(importance().flat(), options()[kEwcGamma]);
    }
    importance() = std::move(fisher);
    anchor() = std::move(now);
  }
};

}  // namespace

const StrategyDeclaration& strategies::ewc() {
  static const StrategyDeclaration declaration{
      .name = "ewc",
      .sort = StrategySort::penalty,
      .description =
          "elastic weight consolidation: the same, weighted by Fisher information summed over "
          "experiences",
      .options = {&kEwcStrength, &kFisher, &kFisherExamples, &kStrategySeed},
      .needs = QuadraticPenalty::kNeeds,
      .make = make_one<Ewc>,
  };
  return declaration;
}

const StrategyDeclaration& strategies::online_ewc() {
  static const StrategyDeclaration declaration{
      .name = "online_ewc",
      .sort = StrategySort::penalty,
      .description = "EWC with one decaying Fisher information and the newest parameters",
      .options = {&kOnlineEwcStrength, &kEwcGamma, &kFisher, &kFisherExamples, &kStrategySeed},
      .needs = QuadraticPenalty::kNeeds,
      .differs =
          "an experience's Fisher information is not normalised before it is added: the paper does "
          "so where rewards have scales of their own, a cross entropy has one scale, and published "
          "strengths (Hsu et al. 2018) are without it",
      .make = make_one<OnlineEwc>,
  };
  return declaration;
}

}  // namespace perennial::continual
