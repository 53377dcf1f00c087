// SPDX-License-Identifier: Apache-2.0
// The PEER layer on the host, as one differentiable operation.
// Symbols: B tokens, H heads, C = H d_key.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "nn/forward_mode.h"
#include "nn/router.h"
#include "perennial/core/pool.h"

namespace perennial {

// The query (B, C) of x (B, d_in), normed. With `batch_statistics`, batch norm uses this batch's,
// else the running ones; mean and rstd are what it used.
struct QueryResult {
  at::Tensor raw;  // before the norm
  at::Tensor normed;
  at::Tensor mean, rstd;  // (C) batch norm's, (B, H) layer norm's, or rstd (B, H) RMS norm's
  at::Tensor scale;       // (C) batch norm in evaluation
};
QueryResult compute_query(const Router& router, const at::Tensor& x, const at::Tensor& weight,
                          const at::Tensor& gamma, const at::Tensor& beta, bool batch_statistics);

// y (B, d_out) of x (B, d_in), with gradients for x and the router's tensors; where the mode says
// so the experts' gradients are kept where they live. Updates the running statistics in training.
// Refused: a second derivative, and a backward after a step of the experts that were read.
at::Tensor peer_forward(const std::shared_ptr<Router>& router, const std::shared_ptr<Pool>& pool,
                        const at::Tensor& x, const ForwardMode& mode);

}  // namespace perennial
