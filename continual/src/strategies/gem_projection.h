// SPDX-License-Identifier: Apache-2.0
// The projections of GEM and A-GEM.
#pragma once

#include <torch/types.h>

#include <vector>

namespace perennial::continual {

// min over v >= margin of 1/2 v' P v + b' v, for P (t, t) symmetric positive definite and b (t),
// both float64 of the host: the dual of GEM (Lopez-Paz & Ranzato 2017, eq. 11). The active-set
// method of Lawson & Hanson (1974, chapter 23, NNLS) on v - margin: exact to rounding, finite, each
// of usually about t rounds solves a system of at most t unknowns.
std::vector<double> gem_dual(const torch::Tensor& p, const torch::Tensor& b, double margin);

// The vector nearest to `gradient` (P) whose products with the rows of `memory` (t, P) are not
// negative, then `margin` times each row that the solution would have to move along: g + G' v with
// v the dual above, P = G G' + 1e-9 of its mean diagonal. The gradient itself, the same bits, when
// no product is negative.
torch::Tensor gem_projection(const torch::Tensor& gradient, const torch::Tensor& memory,
                             double margin);

// A-GEM: g - (g.r / r.r) r where g.r < 0, else g.
torch::Tensor agem_projection(const torch::Tensor& gradient, const torch::Tensor& reference);

}  // namespace perennial::continual
