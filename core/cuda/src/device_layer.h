// SPDX-License-Identifier: Apache-2.0
// The layer on a device.
#pragma once

#include <memory>
#include <utility>

#include "device_pool.h"
#include "device_selection.h"
#include "nn/layer_math.h"
#include "perennial/core/expert_layers.h"

namespace perennial::cuda {

// The query network and its norm are LibTorch's, in fp32 unless LibTorch was told to use TF32;
// retrieval is our kernels', on LibTorch's current stream. The experts are the pool's place's.
class DeviceLayer : public LayerMath {
 public:
  // `experts` is, or will be, where the pool of the layer's experts has put them.
  explicit DeviceLayer(std::shared_ptr<DevicePool> experts)
      : kernels_(std::make_shared<DeviceSelection>(std::move(experts))) {}

  // Throws InvalidOptions for a layer that the kernels cannot serve.
  static void require_served(const PeerOptions& options);

  at::Tensor forward(const std::shared_ptr<Router>& router, const std::shared_ptr<Pool>& pool,
                     const at::Tensor& x, const ForwardMode& mode) override;
  PeerImpl::Retrieval retrieve(const Router& router, const at::Tensor& x) override;

 private:
  class Function;
  std::shared_ptr<const DeviceSelection> kernels_;
};

// Brings a layer, or all of a model, back from where it is.
void to_host(PeerImpl& peer);
void to_host(ExpertLayers& layers);
// Puts a layer's routers and experts on a device, whatever runtime.h and the kernels make of it.
// The layer reads its pool alone.
void place_layer(PeerImpl& peer, const at::Device& device);
// The same of all layers and pools of a model.
void place_layers(ExpertLayers& layers, const at::Device& device);

}  // namespace perennial::cuda
