// SPDX-License-Identifier: Apache-2.0
// What a backward leaves for the experts' own gradients. C++17, for host and device.
#pragma once

#include <cstdint>

namespace perennial::kernels {

// What one backward left for the expert side: rows of x and dy with their coefficients.
struct Contribution {
  std::int64_t slots = 0;
  const float* x = nullptr;   // (B, d_in)
  const float* dy = nullptr;  // (B, d_out)
  const float* cu = nullptr;  // (B, S, r)
  const float* cv = nullptr;
  const float* cw = nullptr;  // null without GLU
};

// One use of an expert: contribution index and flat position token * S + slot within it.
struct Use {
  std::uint32_t contribution = 0;
  std::uint32_t position = 0;
};

}  // namespace perennial::kernels
