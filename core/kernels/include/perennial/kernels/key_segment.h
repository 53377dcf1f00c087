// SPDX-License-Identifier: Apache-2.0
// Which row keys a retrieval sees, with how many columns. C++17, for host and device.
#pragma once

#include <cstdint>

namespace perennial::kernels {

// A run of row keys that are visible together with the first `cols` column keys: key i of the run
// belongs to row first_row + i. What is masked is in no segment.
struct KeySegment {
  std::int64_t key_begin = 0;  // first row key of the run, in row_keys
  std::int64_t rows = 0;
  std::int64_t cols = 0;  // at most the number of column keys
  std::uint32_t first_row = 0;
};

}  // namespace perennial::kernels
