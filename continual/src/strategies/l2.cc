// SPDX-License-Identifier: Apache-2.0
// L2: stay near the last experience's parameters.
#include <ATen/core/grad_mode.h>

#include "strategies/quadratic_penalty.h"

namespace perennial::continual {

namespace {

constexpr StrategyOption<double> kL2Strength{
    "l2_strength", 0.5, "l2: lambda of lambda |theta - theta*|^2", Range{0, 1e12}};

// The baseline of Kirkpatrick et al. 2017 (arXiv 1612.00796) and Hsu et al. 2018 (arXiv
// 1810.12488): L = L_ce + lambda |theta - theta*|^2, theta* the parameters at the end of the last
// experience. Default lambda .5 (Hsu et al., split MNIST, domain- and class-incremental). Naive,
// bit for bit, at lambda = 0.
class L2 : public QuadraticPenalty {
 public:
  explicit L2(const StrategyOptions& options) : QuadraticPenalty("l2", 2 * options[kL2Strength]) {}

  void after_experience(StrategyContext& context) override {
    if (!on()) return;
    const std::vector<torch::Tensor> parameters = parameters_of(context.model);
    if (!importance().defined()) {
      importance().set_zero(parameters);
      const at::NoGradGuard no_grad;
      importance().flat().fill_(1);
    }
    anchor().set_values(parameters);
  }
};

}  // namespace

const StrategyDeclaration& strategies::l2() {
  static const StrategyDeclaration declaration{
      .name = "l2",
      .sort = StrategySort::penalty,
      .description = "pulls parameters to where the last experience left them",
      .options = {&kL2Strength},
      .needs = QuadraticPenalty::kNeeds,
      .make = make_one<L2>,
  };
  return declaration;
}

}  // namespace perennial::continual
