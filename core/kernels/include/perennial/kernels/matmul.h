// SPDX-License-Identifier: Apache-2.0
// Small matrix products whose every output is one sum of fixed order: the bits of a row depend
// neither on the batch around it, nor on the thread count, nor on the instruction set.
// Thread-safe, no alignment required, outputs must not overlap inputs.
#pragma once

#include <cstdint>

namespace perennial::kernels {

// out[m][n] = sum_k a[m][k] b[n][k]  (+ bias[n] when bias is given), k in 16 virtual lanes with a
// fixed tree: lane l sums k = l, l + 16, ... by fused multiply-add (the tail padded with zeros),
// then lanes fold by halves: l += l + 8, l += l + 4, l += l + 2, l += l + 1. Rows of a, b, out
// start lda, ldb, ldout floats apart. bias may be null. Allocates nothing.
void matmul_nt(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
               const float* b, std::int64_t ldb, const float* bias, float* out, std::int64_t ldout);

// out[m][n] (+)= sum_k a[m * a_row + k * a_col] b[k][n], k ascending by fused multiply-add,
// starting from 0, or from out[m][n] when `accumulate`. With (a_row, a_col) = (lda, 1) this is a b,
// with (1, lda) it is a^T b.
void matmul_nn(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_row,
               std::int64_t a_col, const float* b, std::int64_t ldb, float* out, std::int64_t ldout,
               bool accumulate);

}  // namespace perennial::kernels
