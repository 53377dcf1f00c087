// SPDX-License-Identifier: Apache-2.0
// core/cuda/src/runtime.h of the stand-in device.
#include <ATen/ops/empty.h>

#include <string>

#include "host_device.h"
#include "perennial/core/error.h"
#include "runtime.h"

namespace perennial::cuda {

kernels::cuda::Stream current_stream(const at::Device& /*device*/) { return nullptr; }
Memory memory_of(const at::Device& /*device*/) {
  return {host_device().available, host_device().available};
}
at::Tensor host_buffer(const at::Device& /*device*/, std::int64_t bytes) {
  return at::empty({bytes}, at::kByte);
}
void check(kernels::cuda::Error error, const char* what) {
  if (error != 0) {
    throw DeviceError(std::string(what) + " failed: " + kernels::cuda::error_text(error));
  }
}

}  // namespace perennial::cuda
