// SPDX-License-Identifier: Apache-2.0
// The query network with its norm.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "nn/peer_function.h"
#include "perennial/kernels/matmul.h"
#include "perennial/kernels/norm.h"
#include "token_threads.h"

namespace perennial {

QueryResult compute_query(const Router& router, const at::Tensor& x, const at::Tensor& weight,
                          const at::Tensor& gamma, const at::Tensor& beta, bool batch_statistics) {
  const PeerOptions& options = router.options();
  const std::int64_t tokens = x.size(0), channels = options.heads * options.d_key;
  const at::Tensor in = rounded(x, router.amp), w = rounded(weight, router.amp),
                   added = rounded(router.query_bias, router.amp);
  QueryResult result;
  result.raw = at::empty({tokens, channels});
  // The product of tokens [begin, end) and channels [from, to).
  const auto project = [&](std::int64_t begin, std::int64_t end, std::int64_t from,
                           std::int64_t to) {
    const float* bias = data(added);
    kernels::matmul_nt(end - begin, to - from, options.d_in, data(in) + begin * options.d_in,
                       options.d_in, data(w) + from * options.d_in, options.d_in,
                       bias == nullptr ? nullptr : bias + from,
                       out(result.raw) + begin * channels + from, channels);
  };
  if (few_tokens(tokens)) {
    share_out(0, channels, 64, [&](auto from, auto to) { project(0, tokens, from, to); });
  } else {
    over_tokens(0, tokens, [&](auto begin, auto end) { project(begin, end, 0, channels); });
  }
  result.raw = rounded(result.raw, router.amp);
  if (options.query_norm == QueryNorm::none || router.folded()) {
    result.normed = result.raw;
    return result;
  }
  result.normed = at::empty_like(result.raw);
  if (options.query_norm == QueryNorm::rms) {
    result.rstd = at::empty({tokens, options.heads});
    over_tokens(0, tokens, [&](auto begin, auto end) {
      kernels::rms_norm_forward(begin, end, options.heads, options.d_key, data(result.raw),
                                data(gamma), static_cast<float>(options.norm_eps),
                                out(result.normed), out(result.rstd));
    });
  } else if (options.query_norm == QueryNorm::layer) {
    result.mean = at::empty({tokens, options.heads});
    result.rstd = at::empty({tokens, options.heads});
    over_tokens(0, tokens, [&](auto begin, auto end) {
      kernels::layer_norm_forward(begin, end, options.heads, options.d_key, data(result.raw),
                                  data(gamma), data(beta), static_cast<float>(options.norm_eps),
                                  out(result.normed), out(result.mean), out(result.rstd));
    });
  } else if (batch_statistics) {
    result.mean = at::empty({channels});
    result.rstd = at::empty({channels});
    share_out(0, channels, 8, [&](auto begin, auto end) {
      kernels::batch_norm_forward(tokens, channels, begin, end, data(result.raw), data(gamma),
                                  data(beta), static_cast<float>(options.norm_eps),
                                  out(result.normed), out(result.mean), out(result.rstd));
    });
  } else {
    // Copies: a training forward may move the statistics before this one's backward.
    result.mean = router.running_mean.clone();
    result.rstd = (router.running_var + options.norm_eps).sqrt().reciprocal();
    result.scale = gamma / (router.running_var + options.norm_eps).sqrt();
    const at::Tensor shift = beta - result.scale * router.running_mean;
    over_tokens(0, tokens, [&](auto begin, auto end) {
      kernels::affine_forward(begin, end, channels, data(result.raw), data(result.scale),
                              data(shift), out(result.normed));
    });
  }
  return result;
}

}  // namespace perennial
