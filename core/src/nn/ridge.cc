// SPDX-License-Identifier: Apache-2.0
// Cholesky, and a search over the strengths.
#include "nn/ridge.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/linalg_cholesky.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace perennial {

namespace {

// What the strength is where there is nothing to choose it by.
constexpr double kUnobserved = 100;
constexpr int kFirstPower = -3, kLastPower = 6;

double gcv(const RidgeSums& sums, double ridge) {
  const at::Tensor lower = ridge_factor(sums.a, ridge);
  const at::Tensor w = at::cholesky_solve(sums.b, lower);
  const double fit = w.mul(sums.b).sum().item<double>();
  // A W = B - r W, so tr(W'A W) = tr(W'B) - r |W|^2.
  const double rss = static_cast<double>(sums.n) - fit - ridge * w.square().sum().item<double>();
  const double m = static_cast<double>(sums.a.size(0));
  const double df = m - ridge * at::cholesky_inverse(lower).diagonal().sum().item<double>();
  const double left = static_cast<double>(sums.n) - df;
  // With as many features as inputs everything is fitted, whatever it is worth.
  if (!(left > 0) || !std::isfinite(rss)) return std::numeric_limits<double>::infinity();
  return std::max(rss, 0.0) / left / left;
}

}  // namespace

at::Tensor ridge_factor(const at::Tensor& a, double ridge) {
  // In place and back, to the bit: a copy of A may be the largest thing in memory.
  at::Tensor diagonal = a.diagonal();
  const at::Tensor before = diagonal.clone();
  diagonal.add_(ridge);
  at::Tensor lower = at::linalg_cholesky(a);
  diagonal.copy_(before);
  return lower;
}

at::Tensor ridge_weights(const at::Tensor& a, double ridge, const at::Tensor& b) {
  return at::cholesky_solve(b, ridge_factor(a, ridge)).t().to(at::kFloat).contiguous();
}

double choose_ridge(const RidgeSums& sums) {
  const at::NoGradGuard no_grad;
  if (sums.n == 0) return kUnobserved;
  double best = kUnobserved, least = std::numeric_limits<double>::infinity();
  const auto consider = [&](double ridge) {
    const double error = gcv(sums, ridge);
    if (error < least || (error == least && ridge > best)) {
      least = error;
      best = ridge;
    }
  };
  for (int power = kFirstPower; power <= kLastPower; ++power) consider(std::pow(10.0, power));
  const double coarse = best;
  for (const double step : {std::sqrt(0.1), std::sqrt(10.0)}) consider(coarse * step);
  return best;
}

}  // namespace perennial
