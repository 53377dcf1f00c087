// SPDX-License-Identifier: Apache-2.0
// The device of continual_cuda_test.
#include "device_testing.h"
#include "perennial/core/cuda.h"

namespace perennial::cuda {

std::string no_device() {
  try {
    (void)require_device();
    return "";
  } catch (const DeviceError& error) {
    return error.what();
  }
}
at::Device device_under_test() { return {at::kCUDA, 0}; }

}  // namespace perennial::cuda
