// SPDX-License-Identifier: Apache-2.0
// Finding a device, and putting a layer on it.
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include <string>

#include "device_layer.h"
#include "perennial/core/cuda.h"
#include "perennial/core/error.h"
#include "perennial/kernels/cuda/device.h"
#include "runtime.h"

namespace perennial::cuda {

at::Device require_device(int index) {
  int count = 0;
  const auto error = static_cast<cudaError_t>(kernels::cuda::device_count(&count));
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    (void)cudaDriverGetVersion(&driver);
    throw DeviceError(driver == 0
                          ? std::string("no CUDA driver is installed on this machine")
                          : "the CUDA driver is for CUDA " + std::to_string(driver / 1000) + "." +
                                std::to_string(driver % 1000 / 10) + "; this build needs " +
                                std::to_string(CUDART_VERSION / 1000) + ".0 or newer");
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    throw DeviceError("this machine has no CUDA device");
  }
  if (error != cudaSuccess) {
    throw DeviceError(std::string("CUDA cannot be used: ") + kernels::cuda::error_text(error));
  }
  if (index < 0 || index >= count) {
    throw DeviceError("there is no device cuda:" + std::to_string(index) + "; this machine has " +
                      std::to_string(count));
  }
  if (const kernels::cuda::Error built = kernels::cuda::device_served(index); built != 0) {
    throw DeviceError("the kernels of this build do not run on cuda:" + std::to_string(index) +
                      ": " + kernels::cuda::error_text(built));
  }
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

std::string model_of(const at::Device& device) {
  cudaDeviceProp properties{};
  check(static_cast<kernels::cuda::Error>(cudaGetDeviceProperties(&properties, device.index())),
        "asking for the device's name");
  return properties.name;
}

namespace {

at::Device cuda_device(const at::Device& wanted) {
  if (!wanted.is_cuda()) throw DeviceError("a layer cannot be placed on " + wanted.str());
  return require_device(wanted.has_index() ? wanted.index() : 0);
}

}  // namespace

void place_on(PeerImpl& peer, const at::Device& device) {
  if (device.is_cpu()) {
    to_host(peer);
    return;
  }
  place_layer(peer, cuda_device(device));
}

void place_on(ExpertLayers& layers, const at::Device& device) {
  if (device.is_cpu()) {
    to_host(layers);
    return;
  }
  place_layers(layers, cuda_device(device));
}

}  // namespace perennial::cuda
