// SPDX-License-Identifier: Apache-2.0
// Backward of batch, layer and RMS norm over the kernels.
#include "nn/norm_backward.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "perennial/kernels/norm.h"
#include "token_threads.h"

namespace perennial {

namespace {

constexpr std::int64_t kChannelGrain = 8;

// Batch norm in evaluation: an affine map with constant statistics.
void affine_backward(std::int64_t tokens, std::int64_t channels, std::int64_t begin,
                     std::int64_t end, const float* x, const float* mean, const float* rstd,
                     const float* scale, const float* dy, float* dx, float* dgamma, float* dbeta) {
  for (std::int64_t c = begin; c < end; ++c) {
    double sum = 0, dot = 0;
    for (std::int64_t b = 0; b < tokens; ++b) {
      const std::int64_t i = b * channels + c;
      sum += dy[i];
      dot += dy[i] * (double{x[i]} - mean[c]) * rstd[c];
      dx[i] = dy[i] * scale[c];
    }
    dgamma[c] = static_cast<float>(dot);
    dbeta[c] = static_cast<float>(sum);
  }
}

}  // namespace

NormGradient norm_backward(const Router& router, const QueryResult& query, const at::Tensor& gamma,
                           const at::Tensor& dnormed, bool batch_statistics) {
  const PeerOptions& options = router.options();
  if (options.query_norm == QueryNorm::none || router.folded()) return {dnormed, {}, {}};
  const std::int64_t tokens = dnormed.size(0), channels = dnormed.size(1);
  const std::int64_t heads = options.heads, dim = options.d_key;
  const bool rms = options.query_norm == QueryNorm::rms;
  NormGradient gradient{at::empty_like(dnormed), at::empty({channels}),
                        rms ? at::Tensor() : at::empty({channels})};
  const float *x = data(query.raw), *mean = data(query.mean), *rstd = data(query.rstd),
              *scale = data(query.scale), *g = data(gamma), *dy = data(dnormed);
  float* const dx = gradient.draw.mutable_data_ptr<float>();
  float* const dgamma = gradient.dgamma.mutable_data_ptr<float>();
  float* const dbeta = rms ? nullptr : gradient.dbeta.mutable_data_ptr<float>();
  if (options.query_norm != QueryNorm::batch) {
    over_tokens(0, tokens, [&](auto begin, auto end) {
      if (rms) {
        kernels::rms_norm_backward(begin, end, heads, dim, x, g, rstd, dy, dx);
      } else {
        kernels::layer_norm_backward(begin, end, heads, dim, x, g, mean, rstd, dy, dx);
      }
    });
  }
  at::parallel_for(0, channels, kChannelGrain, [&](auto begin, auto end) {
    if (rms) {
      kernels::rms_norm_backward_gamma(tokens, heads, dim, begin, end, x, rstd, dy, dgamma);
    } else if (options.query_norm == QueryNorm::layer) {
      kernels::layer_norm_backward_affine(tokens, heads, dim, begin, end, x, mean, rstd, dy, dgamma,
                                          dbeta);
    } else if (batch_statistics) {
      kernels::batch_norm_backward(tokens, channels, begin, end, x, g, mean, rstd, dy, dx, dgamma,
                                   dbeta);
    } else {
      affine_backward(tokens, channels, begin, end, x, mean, rstd, scale, dy, dx, dgamma, dbeta);
    }
  });
  return gradient;
}

}  // namespace perennial
