// SPDX-License-Identifier: Apache-2.0
// The PEER layer on a CUDA device. Only in builds with PERENNIAL_WITH_CUDA (library
// perennial::cuda).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "perennial/core/expert_layers.h"
#include "perennial/core/peer.h"

namespace perennial::cuda {

// The device called cuda:`index`. Throws DeviceError, saying in one line what is missing: a driver
// that is there and new enough, a device, that device, one of the architectures of this build.
at::Device require_device(int index = 0);

// What such a device is: "NVIDIA H100 80GB HBM3".
std::string model_of(const at::Device& device);

// Moves a layer's routers, experts and optimizer state to a CUDA device, where forward, backward
// and SparseOptimizer then work, on tensors of that device and LibTorch's current stream; or back,
// to at::kCPU. All experts must fit the device's memory; a memory budget of the pool is of the
// host's pages. The layer does what it did before, to rounding: experts have the CPU's order of
// summation, the query network LibTorch's. Whoever commits the layer, reads experts or freezes
// waits for the experts that changed. Gradients that wait for a step are dropped.
// Throws InvalidOptions for top_k above 128, DeviceError when it does not fit, with the figures, or
// as require_device(); the layer is then on the CPU.
void place_on(PeerImpl& peer, const at::Device& device);
// The same of all layers of a model, with their pools.
void place_on(ExpertLayers& layers, const at::Device& device);

}  // namespace perennial::cuda
