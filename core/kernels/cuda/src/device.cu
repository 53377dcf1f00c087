// SPDX-License-Identifier: Apache-2.0
// Devices and errors.
#include "launch.h"
#include "perennial/kernels/cuda/device.h"

namespace perennial::kernels::cuda {

const char* error_text(Error error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

Error device_count(int* count) {
  *count = 0;
  return static_cast<Error>(cudaGetDeviceCount(count));
}

}  // namespace perennial::kernels::cuda
