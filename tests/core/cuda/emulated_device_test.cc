// SPDX-License-Identifier: Apache-2.0
// The stand-in device with CUDA's kernels, emulated.
#include <optional>

#include "device_testing.h"
#include "emulator.h"
#include "host_device.h"

namespace perennial::cuda {

std::string no_device() { return ""; }
at::Device device_under_test() { return fake_device(); }

namespace {

std::optional<DeviceAccess> access;
const bool connected = [] {
  emulator::reach = {[] { access.emplace(); }, [] { access.reset(); }};
  return true;
}();

}  // namespace
}  // namespace perennial::cuda
