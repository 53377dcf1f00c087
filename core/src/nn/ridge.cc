// SPDX-License-Identifier: Apache-2.0
// Cholesky, and a search over the strengths.
#include "nn/ridge.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "perennial/core/error.h"

namespace perennial {

namespace {

// What the strength is where there is nothing to choose it by.
constexpr double kUnobserved = 100;
// Powers of ten searched, the largest being that of the trace, which no eigenvalue exceeds: from
// there on all is shrunk alike, and a sum that is singular is factorised reliably down to 1e-11 of
// it.
constexpr int kPowers = 11;

// The Cholesky factor of A + ridge I; undefined where that is not positive definite to rounding.
at::Tensor factor_if_any(const at::Tensor& a, double ridge) {
  // In place and back, to the bit, whatever happens: a copy of A may be the largest thing in
  // memory.
  const struct Diagonal {
    at::Tensor now, before;
    ~Diagonal() { now.copy_(before); }
  } diagonal{a.diagonal(), a.diagonal().clone()};
  diagonal.now.add_(ridge);
  const auto [lower, failed] = at::linalg_cholesky_ex(a);
  return failed.item<std::int32_t>() == 0 ? lower : at::Tensor();
}

double gcv(const RidgeSums& sums, double ridge) {
  const at::Tensor lower = factor_if_any(sums.a, ridge);
  if (!lower.defined()) return std::numeric_limits<double>::infinity();
  const at::Tensor w = at::cholesky_solve(sums.b, lower);
  const double fit = w.mul(sums.b).sum().item<double>();
  // A W = B - r W, so tr(W'A W) = tr(W'B) - r |W|^2.
  const double rss =
      static_cast<double>(sums.n) + sums.excess - fit - ridge * w.square().sum().item<double>();
  const double m = static_cast<double>(sums.a.size(0));
  const double df = m - ridge * at::cholesky_inverse(lower).diagonal().sum().item<double>();
  const double left = static_cast<double>(sums.n) - df;
  // With as many features as inputs everything is fitted, whatever it is worth.
  if (!(left > 0) || !std::isfinite(rss)) return std::numeric_limits<double>::infinity();
  return std::max(rss, 0.0) / left / left;
}

}  // namespace

at::Tensor ridge_factor(const at::Tensor& a, double ridge) {
  at::Tensor lower = factor_if_any(a, ridge);
  if (lower.defined()) return lower;
  throw Error(c10::str("ridge is ", ridge, ", too small for features whose squares sum to ",
                       a.trace().item<double>(),
                       ": take a larger one, or 0, which chooses it, or normalise the inputs"));
}

at::Tensor ridge_weights(const at::Tensor& a, double ridge, const at::Tensor& b) {
  return at::cholesky_solve(b, ridge_factor(a, ridge)).t().to(at::kFloat).contiguous();
}

double choose_ridge(const RidgeSums& sums) {
  const at::NoGradGuard no_grad;
  const double trace = sums.n == 0 ? 0 : sums.a.trace().item<double>();
  if (!(trace > 0)) return kUnobserved;
  const auto last = static_cast<int>(std::floor(std::log10(trace)));
  double best = std::pow(10.0, last), least = std::numeric_limits<double>::infinity();
  const auto consider = [&](double ridge) {
    const double error = gcv(sums, ridge);
    if (error < least || (error == least && ridge > best)) {
      least = error;
      best = ridge;
    }
  };
  for (int power = last; power > last - kPowers; --power) consider(std::pow(10.0, power));
  const double coarse = best;
  for (const double step : {std::sqrt(0.1), std::sqrt(10.0)}) consider(coarse * step);
  return best;
}

}  // namespace perennial
