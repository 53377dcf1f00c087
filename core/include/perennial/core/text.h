// SPDX-License-Identifier: Apache-2.0
// Text from outside: whether it is UTF-8, which everything that is stored must be.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace perennial {

// Where the first byte is that begins no UTF-8 character (RFC 3629); npos when all is UTF-8.
std::size_t invalid_utf8(std::string_view text);

// The text with U+FFFD for each byte that belongs to no character: for messages.
std::string valid_utf8(std::string_view text);

}  // namespace perennial
