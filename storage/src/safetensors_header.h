// SPDX-License-Identifier: Apache-2.0
// The JSON header of a safetensors file: its text, and the checks of one that was read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/storage/safetensors.h"

namespace perennial::storage {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their bytes
  SafetensorsMetadata metadata;
};

// Checks everything about a header that `data_bytes` bytes of tensors follow. corruption says what
// is wrong, without the file's name.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, std::uint64_t data_bytes);

// The header's text, padded so that the data begins at a multiple of 8, and the length of the data.
// invalid_argument: parse_safetensors_header would refuse it.
struct SafetensorsHeaderText {
  std::string text;
  std::uint64_t data_bytes = 0;
};
Result<SafetensorsHeaderText> safetensors_header_text(const std::vector<TensorSpec>& tensors,
                                                      const SafetensorsMetadata& metadata);

}  // namespace perennial::storage
