// SPDX-License-Identifier: Apache-2.0
// GEM's quadratic program, and the closed form of A-GEM.
#include "strategies/gem_projection.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

namespace perennial::continual {

namespace {

// min 1/2 w' P w + c' w over w >= 0.
class NonNegative {
 public:
  NonNegative(const torch::Tensor& p, const torch::Tensor& c)
      : p_(p), c_(c), size_(c.numel()), w_(at::zeros({size_}, at::kDouble)) {
    const double scale = c.abs().max().item<double>();
    tolerance_ = 1e-12 * std::max(scale, std::numeric_limits<double>::min());
  }

  torch::Tensor solve() {
    // A round that adds no variable for good would repeat; 3 t is the usual bound on rounds.
    for (std::int64_t round = 0; round < 3 * size_ + 10; ++round) {
      const std::int64_t next = steepest();
      if (next < 0) break;
      passive_.push_back(next);
      std::sort(passive_.begin(), passive_.end());
      while (!step()) {
      }
    }
    return w_;
  }

 private:
  // The fixed variable whose increase lowers the objective most; -1 = none does.
  std::int64_t steepest() const {
    const torch::Tensor gradient = at::mv(p_, w_) + c_;
    const auto slope = gradient.accessor<double, 1>();
    std::int64_t best = -1;
    for (std::int64_t i = 0; i < size_; ++i) {
      if (std::find(passive_.begin(), passive_.end(), i) != passive_.end()) continue;
      if (slope[i] < -tolerance_ && (best < 0 || slope[i] < slope[best])) best = i;
    }
    return best;
  }

  // Towards the minimum over the passive variables, up to the first that would turn negative; that
  // one is fixed at 0. True when none did.
  bool step() {
    const torch::Tensor index = at::tensor(passive_, at::kLong);
    const torch::Tensor block = p_.index_select(0, index).index_select(1, index);
    const torch::Tensor target = at::linalg_solve(block, -c_.index_select(0, index));
    auto w = w_.accessor<double, 1>();
    const auto z = target.accessor<double, 1>();
    double share = 1;
    for (std::size_t i = 0; i < passive_.size(); ++i) {
      const double at = w[passive_[i]], to = z[static_cast<std::int64_t>(i)];
      if (to <= 0) share = std::min(share, at / (at - to));
    }
    bool whole = true;
    std::vector<std::int64_t> kept;
    for (std::size_t i = 0; i < passive_.size(); ++i) {
      const double at = w[passive_[i]], to = z[static_cast<std::int64_t>(i)];
      const double now = at + share * (to - at);
      if (to <= 0 && (now <= 0 || at / (at - to) <= share)) {
        w[passive_[i]] = 0;
        whole = false;
      } else {
        w[passive_[i]] = now;
        kept.push_back(passive_[i]);
      }
    }
    passive_ = std::move(kept);
    return whole || passive_.empty();
  }

  torch::Tensor p_, c_;
  std::int64_t size_;
  torch::Tensor w_;
  double tolerance_ = 0;
  std::vector<std::int64_t> passive_;  // variables that may differ from 0, ascending
};

}  // namespace

std::vector<double> gem_dual(const torch::Tensor& p, const torch::Tensor& b, double margin) {
  const at::NoGradGuard no_grad;
  const torch::Tensor w = NonNegative(p, b + margin * p.sum(1)).solve();
  std::vector<double> v;
  const auto values = w.accessor<double, 1>();
  for (std::int64_t i = 0; i < w.numel(); ++i) v.push_back(values[i] + margin);
  return v;
}

torch::Tensor gem_projection(const torch::Tensor& gradient, const torch::Tensor& memory,
                             double margin) {
  const at::NoGradGuard no_grad;
  const torch::Tensor products = at::mv(memory, gradient).cpu().to(at::kDouble);
  if (products.min().item<double>() >= 0) return gradient;
  torch::Tensor p = at::mm(memory, memory.t()).cpu().to(at::kDouble);
  p = (p + p.t()) / 2;
  p.diagonal().add_(1e-9 * p.diagonal().mean().item<double>() + std::numeric_limits<double>::min());
  const std::vector<double> v = gem_dual(p, products, margin);
  return gradient +
         at::mv(memory.t(), at::tensor(v, at::kDouble).to(at::kFloat).to(gradient.device()));
}

torch::Tensor agem_projection(const torch::Tensor& gradient, const torch::Tensor& reference) {
  const at::NoGradGuard no_grad;
  const double product = at::dot(gradient, reference).item<double>();
  if (product >= 0) return gradient;
  return gradient - product / at::dot(reference, reference).item<double>() * reference;
}

}  // namespace perennial::continual
