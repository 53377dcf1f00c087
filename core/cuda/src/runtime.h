// SPDX-License-Identifier: Apache-2.0
// What the device side asks of the machine. CUDA's answers are in runtime.cc; the host tests have
// their own, together with kernels that run on the host.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "perennial/kernels/cuda/device.h"

namespace perennial::cuda {

// LibTorch's current stream of a device, whose kernels this thread launches from now on.
kernels::cuda::Stream current_stream(const at::Device& device);

// Bytes of a device that can be had now: what is free, and what LibTorch holds without using it.
struct Memory {
  std::int64_t available = 0, total = 0;
};
Memory memory_of(const at::Device& device);

// Memory for `bytes` that the host writes and reads, and that the device's copies go to without a
// detour (pinned).
at::Tensor host_buffer(const at::Device& device, std::int64_t bytes);

// Throws DeviceError, naming what failed, unless the code is success.
void check(kernels::cuda::Error error, const char* what);

}  // namespace perennial::cuda
