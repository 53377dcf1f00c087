// SPDX-License-Identifier: Apache-2.0
// Forward and backward of the PEER layer on a device.
#pragma once

#include <memory>
#include <optional>

#include "device_pool.h"
#include "nn/router.h"

namespace perennial::cuda {

// The query network and its norm are LibTorch's, in fp32 unless LibTorch was told to use TF32;
// retrieval and experts are our kernels, on LibTorch's current stream.
class DeviceLayer : public DevicePool, public std::enable_shared_from_this<DeviceLayer> {
 public:
  // Throws InvalidOptions for a layer that the kernels cannot serve, else as DevicePool.
  DeviceLayer(const PeerOptions& options, Pool& pool, const at::Device& device,
              std::int64_t staging_bytes = std::int64_t{32} << 20);

  at::Tensor forward(const std::shared_ptr<Router>& router, const std::shared_ptr<Pool>& pool,
                     const at::Tensor& x, const ForwardMode& mode) override;
  PeerImpl::Retrieval retrieve(const Router& router, const at::Tensor& x) override;

 private:
  class Function;
  // What a backward needs beside its tensors.
  struct Call;
  struct Found {
    at::Tensor ids, scores, row_index;  // (B, S), int32 indices
    at::Tensor weights, normalised;     // after and before dropout; the latter with dropout only
  };
  struct Answer {
    Found found;
    at::Tensor y, pre, gate;
  };
  // bf16: of the query and the keys, rounded.
  Found retrieve(const PeerOptions& options, Amp amp, const at::Tensor& query,
                 const at::Tensor& row_keys, const at::Tensor& col_keys,
                 const std::vector<kernels::KeySegment>& segments,
                 std::optional<std::uint64_t> dropout_draw);
  Answer answer(const PeerOptions& options, const at::Tensor& x, Found found);
  at::Tensor drop_out(const PeerOptions& options, std::uint64_t draw, const at::Tensor& values);
};

// Puts a layer's routers and experts on a device, whatever runtime.h and the kernels make of it.
void place_layer(PeerImpl& peer, const at::Device& device);

}  // namespace perennial::cuda
