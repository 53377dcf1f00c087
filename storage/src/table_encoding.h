// SPDX-License-Identifier: Apache-2.0
// What the blocks of a RocksDB table file are encoded with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace perennial::storage {

inline constexpr std::size_t kBlockTrailerBytes = 5;  // compression type, checksum

// Takes a number of variable length from the front of `text`; nothing where there is none.
inline std::optional<std::uint64_t> take_varint(std::string_view& text) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 63 && !text.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(text.front());
    text.remove_prefix(1);
    value |= std::uint64_t{byte & 127u} << shift;
    if (byte < 128) return value;
  }
  return std::nullopt;
}

}  // namespace perennial::storage
