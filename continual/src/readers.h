// SPDX-License-Identifier: Apache-2.0
// The readers of single files behind dataset.h, one a format.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace perennial::continual {

// The starts that tell the formats apart.
inline constexpr std::string_view kIdxMagic{"\0\0", 2};
inline constexpr std::string_view kNpyMagic{"\x93NUMPY", 6};

// Dimensions as messages print them: "60000 x 28 x 28".
std::string format_dims(const std::vector<std::int64_t>& dims);
// Product of `dims` times `element_bytes`; false when it does not fit 63 bits or a dim is negative.
bool checked_bytes(const std::vector<std::int64_t>& dims, std::int64_t element_bytes,
                   std::uint64_t& bytes);

// An NPY file of 2 or 3 dimensions (|u1, <f4, <f8; C order) as (N, D), uint8 or float32.
at::Tensor read_npy(const std::filesystem::path& file);

// Comma-separated numbers, one example a line, as (N, D) float32. A first line without any number
// is a header. Blank lines are skipped. Errors name file, line and column, from 1.
at::Tensor read_csv(const std::filesystem::path& file);

}  // namespace perennial::continual
