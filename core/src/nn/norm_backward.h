// SPDX-License-Identifier: Apache-2.0
// The gradient of the query's norm. Symbols: B tokens, C = H d_key channels.
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/peer_function.h"
#include "nn/router.h"

namespace perennial {

struct NormGradient {
  at::Tensor draw;           // (B, C)
  at::Tensor dgamma, dbeta;  // (C), undefined where the norm has none
};
// Of a query that compute_query() gave with the same batch_statistics; dnormed: (B, C).
NormGradient norm_backward(const Router& router, const QueryResult& query, const at::Tensor& gamma,
                           const at::Tensor& dnormed, bool batch_statistics);

}  // namespace perennial
