// SPDX-License-Identifier: Apache-2.0
// One image from a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace perennial::continual {

struct Image {
  std::int64_t rows = 0, cols = 0;
  std::int64_t channels = 0;         // 1 grey, 3 red, green, blue
  std::vector<std::uint8_t> values;  // (rows, cols, channels)
};

// Reads PNG, JPEG, PGM or PPM, by what the file begins with. Values are bytes: 16 bits become 8,
// transparent parts are laid on black, palettes and CMYK become red, green, blue. An image has at
// most 2^26 pixels. Throws DataError saying what is wrong, without the file's name.
Image read_image(const std::filesystem::path& file);

// Whether the file begins as an image of these formats does.
bool is_image(const std::filesystem::path& file);

}  // namespace perennial::continual
