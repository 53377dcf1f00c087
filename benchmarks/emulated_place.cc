// SPDX-License-Identifier: Apache-2.0
// perennial/core/cuda.h on the stand-in device of the tests, with CUDA's kernels, emulated.
#include <optional>

#include "device_layer.h"
#include "emulator.h"
#include "host_device.h"
#include "perennial/core/cuda.h"

namespace perennial::cuda {

at::Device require_device(int /*index*/) {
  static std::optional<DeviceAccess> access;
  emulator::reach = {[] { access.emplace(); }, [] { access.reset(); }};
  return fake_device();
}

void place_on(PeerImpl& peer, const at::Device& device) { place_layer(peer, device); }

}  // namespace perennial::cuda
