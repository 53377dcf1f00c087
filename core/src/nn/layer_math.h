// SPDX-License-Identifier: Apache-2.0
// Who computes a layer's queries, scores and their gradients, where that is not the host.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "nn/forward_mode.h"
#include "nn/router.h"
#include "perennial/core/pool.h"

namespace perennial {

// As peer_forward() and PeerImpl::retrieve(), of tensors on the device where the pool's experts
// live. Single-threaded.
class LayerMath {
 public:
  virtual ~LayerMath() = default;
  // The graph holds the pool, and through it the place of its experts.
  virtual at::Tensor forward(const std::shared_ptr<Router>& router,
                             const std::shared_ptr<Pool>& pool, const at::Tensor& x,
                             const ForwardMode& mode) = 0;
  virtual PeerImpl::Retrieval retrieve(const Router& router, const at::Tensor& x) = 0;
};

}  // namespace perennial
