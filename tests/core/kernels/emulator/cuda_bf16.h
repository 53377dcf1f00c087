// SPDX-License-Identifier: Apache-2.0
// CUDA's bf16 type, as far as matrix fragments need it: see emulator.h.
#pragma once

#include <bit>
#include <cstdint>

struct __nv_bfloat16 {
  std::uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 value) {
  return std::bit_cast<float>(std::uint32_t{value.bits} << 16);
}
