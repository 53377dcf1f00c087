// SPDX-License-Identifier: Apache-2.0
// An eigendecomposition a width, after which a strength costs next to nothing.
#include "nn/nested_ridge.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace perennial {

namespace {

constexpr int kLeastHalfPower = -12, kMostHalfPower = 6;
constexpr double kPrice = 1.4;  // of a degree of freedom

}  // namespace

NestedRidge nested_ridge(const RidgeSums& sums, at::IntArrayRef widths) {
  const at::NoGradGuard no_grad;
  const auto n = static_cast<double>(sums.n);
  NestedRidge best{widths.front(), 0, at::zeros({widths.front(), sums.b.size(1)}, at::kDouble)};
  if (sums.n == 0) return best;
  double least = std::numeric_limits<double>::infinity();
  for (const std::int64_t width : widths) {
    const auto [values, vectors] =
        at::linalg_eigh(sums.a.slice(0, 0, width).slice(1, 0, width), "L");
    const at::Tensor curvature = values.clamp_min(0);  // below 0 by rounding only
    const at::Tensor target = vectors.t().matmul(sums.b.slice(0, 0, width));  // (m, C)
    const at::Tensor squares = target.square().sum(1);
    const double scale = curvature.mean().item<double>();
    double chosen = -1;
    for (int power = kMostHalfPower; power >= kLeastHalfPower; --power) {
      const double ridge = scale * std::pow(10.0, power / 2.0);
      if (!(ridge > 0)) break;  // all features are 0
      const at::Tensor inverse = (curvature + ridge).reciprocal();
      // W = V (L + r)^-1 V'B.
      const at::Tensor fitted = squares * inverse;
      const double rss =
          n + sums.excess + (fitted * (curvature * inverse - 2)).sum().item<double>();
      const double left = n - kPrice * (curvature * inverse).sum().item<double>();
      if (!(left > 0)) break;  // nor is there with less ridge
      const double error = std::max(rss, 0.0) / left / left;
      if (error < least) {
        least = error;
        chosen = ridge;
      }
    }
    if (chosen < 0) continue;
    best = {width, chosen, vectors.matmul(target / (curvature + chosen).unsqueeze(1))};
  }
  return best;
}

}  // namespace perennial
