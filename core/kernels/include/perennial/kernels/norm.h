// SPDX-License-Identifier: Apache-2.0
// Query norms: batch, layer and RMS norm of the query, forward and backward.
// Symbols: B tokens, C channels (heads * d_key), D channels a head.
// Thread-safe for disjoint ranges. The batch-norm and gamma kernels allocate O(end - begin)
// doubles.
#pragma once

#include <cstdint>

namespace perennial::kernels {

// Batch norm with this batch's statistics: y = gamma (x - mean) / sqrt(var + eps) + beta, var
// biased. x, y: (B, C). mean, rstd: (C), out; kept for backward. Sums in double, tokens ascending.
// B >= 2. Works on channels [begin, end).
void batch_norm_forward(std::int64_t tokens, std::int64_t channels, std::int64_t begin,
                        std::int64_t end, const float* x, const float* gamma, const float* beta,
                        float eps, float* y, float* mean, float* rstd);
// dx: (B, C); dgamma, dbeta: (C), overwritten. Channels [begin, end).
void batch_norm_backward(std::int64_t tokens, std::int64_t channels, std::int64_t begin,
                         std::int64_t end, const float* x, const float* gamma, const float* mean,
                         const float* rstd, const float* dy, float* dx, float* dgamma,
                         float* dbeta);

// y = x * scale + shift per channel, by one fused multiply-add: batch norm in evaluation.
// Tokens [begin, end).
void affine_forward(std::int64_t begin, std::int64_t end, std::int64_t channels, const float* x,
                    const float* scale, const float* shift, float* y);

// RMS norm per token and head: y = gamma x / sqrt(mean(x^2) + eps). x, y: (B, H, D); gamma: (H, D);
// rrms: (B, H), out. Sums over D in eight double lanes of fixed order. Tokens [begin, end).
void rms_norm_forward(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim,
                      const float* x, const float* gamma, float eps, float* y, float* rrms);
// dx: (B, H, D). Tokens [begin, end).
void rms_norm_backward(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim,
                       const float* x, const float* gamma, const float* rrms, const float* dy,
                       float* dx);
// dgamma: (H, D), overwritten; sums in double, tokens ascending. Channels [begin, end) of H * D.
void rms_norm_backward_gamma(std::int64_t tokens, std::int64_t heads, std::int64_t dim,
                             std::int64_t begin, std::int64_t end, const float* x,
                             const float* rrms, const float* dy, float* dgamma);

// Layer norm per token and head: y = gamma (x - mean) / sqrt(var + eps) + beta, var biased, over
// the D channels of a head. x, y: (B, H, D); gamma, beta: (H, D); mean, rstd: (B, H), out. Sums as
// RMS norm's. Tokens [begin, end).
void layer_norm_forward(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim,
                        const float* x, const float* gamma, const float* beta, float eps, float* y,
                        float* mean, float* rstd);
// dx: (B, H, D). Tokens [begin, end).
void layer_norm_backward(std::int64_t begin, std::int64_t end, std::int64_t heads, std::int64_t dim,
                         const float* x, const float* gamma, const float* mean, const float* rstd,
                         const float* dy, float* dx);
// dgamma, dbeta: (H, D), overwritten; sums in double, tokens ascending. Channels [begin, end) of
// H * D.
void layer_norm_backward_affine(std::int64_t tokens, std::int64_t heads, std::int64_t dim,
                                std::int64_t begin, std::int64_t end, const float* x,
                                const float* mean, const float* rstd, const float* dy,
                                float* dgamma, float* dbeta);

}  // namespace perennial::kernels
