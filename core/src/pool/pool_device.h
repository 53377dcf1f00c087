// SPDX-License-Identifier: Apache-2.0
// What a pool and its layer ask of the device that the experts live on, where they live on one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "nn/forward_mode.h"
#include "nn/router.h"
#include "perennial/core/pool.h"
#include "perennial/kernels/optimizer.h"

namespace perennial {

// The weights and the optimizer state of every generation are on the device, and the pager's pages
// are as of the last fetch(). Generations and state that the pool got meanwhile are taken in by
// whoever needs them first; DeviceError, with the figures, when they do not fit. Single-threaded.
class PoolDevice {
 public:
  virtual ~PoolDevice() = default;

  virtual at::Device device() const = 0;
  // Copies the experts that were updated since the last time into the pager's pages, which become
  // changed. Cost: O(those experts); waits for the device. May do I/O.
  virtual void fetch() = 0;

  // As peer_forward() and PeerImpl::retrieve(), of tensors on the device. `pool` is this device's:
  // the graph holds it.
  virtual at::Tensor forward(const std::shared_ptr<Router>& router,
                             const std::shared_ptr<Pool>& pool, const at::Tensor& x,
                             const ForwardMode& mode) = 0;
  virtual PeerImpl::Retrieval retrieve(const Router& router, const at::Tensor& x) = 0;

  // The gradients that backward passes left; see Pool and SparseOptimizer.
  virtual CompactGradient compact_gradient() = 0;
  virtual void clear_gradients() = 0;
  // How many experts a step updated: (1) int64 on the device, which need not be waited for.
  virtual at::Tensor step(const kernels::UpdateRule& rule) = 0;
  virtual at::Tensor step(const kernels::UpdateRule& rule, const CompactGradient& gradient) = 0;
};

}  // namespace perennial
