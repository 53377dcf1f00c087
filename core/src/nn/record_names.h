// SPDX-License-Identifier: Apache-2.0
// Names of the records that a layer's parts keep in a store's dense state.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace perennial {

inline constexpr const char* kPeerRecord = "peer";
inline constexpr const char* kGateRecord = "gate";

// The entry of a gate's part of a generation.
inline std::string gate_entry(std::size_t generation, std::string_view what) {
  return std::string(kGateRecord).append("/").append(std::to_string(generation)).append("/").append(
      what);
}

}  // namespace perennial
