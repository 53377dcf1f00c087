// SPDX-License-Identifier: Apache-2.0
// The device that a command computes on.
#pragma once

#include <string>

#include "perennial/continual/placement.h"

namespace perennial::cli {

struct DeviceChoice {
  continual::Placement placement;
  std::string note;  // one line for the user where the choice was the program's
};

// What --device says: cpu, cuda, cuda:N, or auto: CUDA where this build, the machine and its memory
// allow it. Throws InvalidOptions for anything else, and for a device that cannot be used, with the
// reason.
DeviceChoice choose_device(const std::string& text);

}  // namespace perennial::cli
