// SPDX-License-Identifier: Apache-2.0
// bf16: the upper half of an fp32. C++17, for host and device.
#pragma once

#include <cstdint>

#include "perennial/kernels/host_device.h"

namespace perennial::kernels {

struct BFloat16 {
  std::uint16_t bits = 0;
};

// Exact.
PERENNIAL_HOST_DEVICE inline float to_float(BFloat16 value) {
  return __builtin_bit_cast(float, std::uint32_t{value.bits} << 16);
}

// The nearest, of two equally near ones the one whose last bit is 0; beyond the largest, infinity.
// NaN stays NaN.
PERENNIAL_HOST_DEVICE inline BFloat16 to_bfloat16(float value) {
  const auto bits = __builtin_bit_cast(std::uint32_t, value);
  const std::uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40u;
  const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  return BFloat16{static_cast<std::uint16_t>(nan ? quiet : rounded)};
}

// out[i] = in[i], of n values.
void promote(std::int64_t n, const BFloat16* in, float* out);
void round_to_bfloat16(std::int64_t n, const float* in, BFloat16* out);

}  // namespace perennial::kernels
