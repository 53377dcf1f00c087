// SPDX-License-Identifier: Apache-2.0
// Runs of trainers on the device under test.
#pragma once

#include "continual/run/trainer_testing.h"
#include "device_testing.h"

namespace perennial::continual {

inline Placement on_device() {
  const at::Device device = cuda::device_under_test();
  return {.device = device,
          .place = [device](PeerImpl& peer) { cuda::place_layer(peer, device); },
          .name = "the device"};
}

inline RunResult run_on(const Placement& placement, const RunConfig& config,
                        storage::PageStore* store, std::function<bool()> stop = {}) {
  RunSettings settings;
  settings.stop_requested = std::move(stop);
  settings.placement = placement;
  return Trainer(config, make_stream(config), store, settings).run();
}

}  // namespace perennial::continual
