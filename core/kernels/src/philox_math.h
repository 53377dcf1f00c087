// SPDX-License-Identifier: Apache-2.0
// One block of Philox4x32-10. C++17, for host and device.
#pragma once

#include <cstdint>

#include "perennial/kernels/host_device.h"

namespace perennial::kernels::math {

// x: in, the 128-bit counter; out, the four words.
PERENNIAL_HOST_DEVICE inline void philox(std::uint64_t seed, std::uint32_t* x) {
  auto key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * x[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * x[2];
    const std::uint32_t x1 = x[1], x3 = x[3];
    x[0] = static_cast<std::uint32_t>(p1 >> 32) ^ x1 ^ key0;
    x[1] = static_cast<std::uint32_t>(p1);
    x[2] = static_cast<std::uint32_t>(p0 >> 32) ^ x3 ^ key1;
    x[3] = static_cast<std::uint32_t>(p0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// The lane that dropout draws from (see experts.h).
constexpr std::uint32_t kDropoutLane = 0x44000000;

}  // namespace perennial::kernels::math
