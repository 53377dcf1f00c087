// SPDX-License-Identifier: Apache-2.0
// The device of continual_device_test.
#include "device_testing.h"
#include "host_device.h"

namespace perennial::cuda {

std::string no_device() { return ""; }
at::Device device_under_test() { return fake_device(); }

}  // namespace perennial::cuda
