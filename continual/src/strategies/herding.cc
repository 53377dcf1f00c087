// SPDX-License-Identifier: Apache-2.0
// Herding by products with the gap that is left.
#include "strategies/herding.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/mv.h>

#include <algorithm>

namespace perennial::continual {

// |mu - (s + f) / k|^2 is, up to what all f share, |f|^2 - 2 f.(k mu - s).
std::vector<std::int64_t> herd(const torch::Tensor& features, std::int64_t count) {
  const at::NoGradGuard no_grad;
  const torch::Tensor f = features.to(at::kDouble);
  const torch::Tensor mean = f.mean(0), lengths = (f * f).sum(1);
  torch::Tensor gap = mean.clone();  // k mu - s
  std::vector<bool> taken(static_cast<std::size_t>(f.size(0)));
  std::vector<std::int64_t> chosen;
  for (std::int64_t k = 0; k < std::min(count, f.size(0)); ++k) {
    const torch::Tensor cost = lengths - 2 * at::mv(f, gap);
    const double* value = cost.const_data_ptr<double>();
    std::int64_t best = -1;
    for (std::int64_t i = 0; i < f.size(0); ++i) {
      if (taken[static_cast<std::size_t>(i)]) continue;
      if (best < 0 || value[i] < value[best]) best = i;
    }
    taken[static_cast<std::size_t>(best)] = true;
    chosen.push_back(best);
    gap += mean - f[best];
  }
  return chosen;
}

}  // namespace perennial::continual
