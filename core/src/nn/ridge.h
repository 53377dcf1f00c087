// SPDX-License-Identifier: Apache-2.0
// Ridge regression from streaming sums, and the choice of its strength from the same sums.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace perennial {

// Sums over n inputs with features f: (M) and targets y: (C), all in float64.
struct RidgeSums {
  at::Tensor a;  // (M, M): sum f f'; its lower triangle is read
  at::Tensor b;  // (M, C): sum f y'
  std::int64_t n = 0;
  double excess = 0;  // sum y.y - n: 0 where y is one hot
};

// (A + ridge I)^-1 B as rows: (C, M) float32. Throws as ridge_factor(). Cost: O(M^3).
at::Tensor ridge_weights(const at::Tensor& a, double ridge, const at::Tensor& b);
// The Cholesky factor of A + ridge I; `a` is changed meanwhile, and is as before when it returns or
// throws: Error where the sum is not positive definite.
at::Tensor ridge_factor(const at::Tensor& a, double ridge);

// The strength with the least generalised cross-validation error (Golub, Heath and Wahba 1979)
//   GCV(r) = n RSS(r) / (n - df(r))^2,  df(r) = tr((A + r I)^-1 A),
// which needs no example to be kept back, and none to be kept: RSS(r), the squared error on all
// inputs, is sum y.y - 2 tr(W'B) + tr(W'A W). Of the eleven powers of ten up to the trace of A, and
// then of the two steps of a factor sqrt(10) around the best; ties to the larger; one that A + r I
// cannot be factorised with is none. A function of the sums alone, so that a resumed run chooses
// the same. 100 where nothing was observed, or only zeros. Cost: 13 factorisations and inverses,
// O(M^3) each.
double choose_ridge(const RidgeSums& sums);

}  // namespace perennial
