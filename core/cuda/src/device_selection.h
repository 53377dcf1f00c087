// SPDX-License-Identifier: Apache-2.0
// Retrieval, scores and their gradients on a device: our kernels, on LibTorch's current stream.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "device_pool.h"
#include "nn/selection.h"

namespace perennial::cuda {

class DeviceSelection : public SelectionKernels {
 public:
  // `experts` lends its scratch memory.
  explicit DeviceSelection(std::shared_ptr<DevicePool> experts) : experts_(std::move(experts)) {}

  const DevicePool& experts() const { return *experts_; }
  // Of a normed query (B, C) and the router's sub-keys, both contiguous.
  Retrieved retrieve(const Router& router, const at::Tensor& query, const at::Tensor& row_keys,
                     const at::Tensor& col_keys) const;

  at::Tensor weigh(const PeerOptions& options, const at::Tensor& scores) const override;
  at::Tensor drop_out(const PeerOptions& options, std::uint64_t draw,
                      const at::Tensor& values) const override;
  void backward_query(const PeerOptions& options, const Scored& scored, const at::Tensor& weights,
                      const at::Tensor& dweights, at::Tensor& dscores,
                      at::Tensor& dquery) const override;
  void backward_keys(const PeerOptions& options, const Scored& scored, const at::Tensor& dscores,
                     at::Tensor& drow_keys, at::Tensor& dcol_keys) const override;

 private:
  std::shared_ptr<DevicePool> experts_;
};

}  // namespace perennial::cuda
