// SPDX-License-Identifier: Apache-2.0
// The device of continual_device_test.
#include "device_testing.h"

namespace perennial::cuda {

std::string no_device() { return ""; }
at::Device device_under_test() { return at::kCPU; }

}  // namespace perennial::cuda
