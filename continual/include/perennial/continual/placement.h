// SPDX-License-Identifier: Apache-2.0
// Where models compute.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "perennial/core/peer.h"

namespace perennial::continual {

// A setting of a process: no configuration, state or digest knows it, so a run that stopped on one
// device goes on on another, to rounding. Models take and give the host's tensors wherever they
// compute. The default is the CPU.
//
// On a device are a model's dense layers and its PEER layer, with the optimizer's state and what
// strategies keep for each dense parameter. The host keeps data, replay memories, gates, fixed
// features, the statistics of an analytic head, and metrics.
struct Placement {
  // With an index where it may have one: cuda:0.
  at::Device device = at::kCPU;
  // Puts a PEER layer on `device`, as perennial::cuda::place_on() does; empty: nothing to do. May
  // throw DeviceError.
  std::function<void(PeerImpl&)> place = {};
  std::string name = {};  // what the device is called, for records
  // Where the device has no room for the model (DeviceError as a run begins or a model is loaded),
  // the CPU is taken instead and the caller told why.
  bool or_cpu = false;
};

}  // namespace perennial::continual
