// SPDX-License-Identifier: Apache-2.0
// Checks UTF-8.
#include "perennial/core/text.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace perennial {
namespace {

// The shortest forms: a character of n bytes is at least kSmallest[n].
constexpr std::array<std::uint32_t, 5> kSmallest = {0, 0, 0x80, 0x800, 0x10000};

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Bytes of the character that `text` begins with; 0 when it is none.
std::size_t character_bytes(std::string_view text) {
  const auto first = static_cast<unsigned char>(text.front());
  if (first < 0x80) return 1;
  const std::size_t length = first < 0xC0 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (length == 0 || first > 0xF4 || text.size() < length) return 0;
  std::uint32_t code = first & (0x7FU >> length);
  for (const char byte : text.substr(1, length - 1)) {
    if (!continues(byte)) return 0;
    code = code << 6 | (static_cast<unsigned char>(byte) & 0x3FU);
  }
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return code < kSmallest[length] || code > 0x10FFFF || surrogate ? 0 : length;
}

}  // namespace

std::size_t invalid_utf8(std::string_view text) {
  const auto ascii = [](char byte) { return static_cast<unsigned char>(byte) < 0x80; };
  for (std::size_t at = 0;;) {
    at = static_cast<std::size_t>(
        std::find_if_not(text.begin() + static_cast<std::ptrdiff_t>(at), text.end(), ascii) -
        text.begin());
    if (at == text.size()) return std::string_view::npos;
    const std::size_t length = character_bytes(text.substr(at));
    if (length == 0) return at;
    at += length;
  }
}

std::string valid_utf8(std::string_view text) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  std::string valid;
  while (true) {
    const std::size_t at = std::min(invalid_utf8(text), text.size());
    valid += text.substr(0, at);
    if (at == text.size()) return valid;
    valid += kReplacement;
    text.remove_prefix(at + 1);
  }
}

}  // namespace perennial
