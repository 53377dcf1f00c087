// SPDX-License-Identifier: Apache-2.0
// Names of the records that a layer's parts keep in a store's dense state.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "perennial/core/names.h"

namespace perennial {

inline constexpr const char* kGateRecord = "gate";

// A layer's record, and what the names of its tensors begin with before a slash.
inline std::string layer_entry(std::string_view name) {
  return name == kDefaultName ? std::string(name) : "layer/" + std::string(name);
}

// The entry of a gate's part of a generation.
inline std::string gate_entry(std::size_t generation, std::string_view what) {
  return std::string(kGateRecord)
      .append("/")
      .append(std::to_string(generation))
      .append("/")
      .append(what);
}

}  // namespace perennial
