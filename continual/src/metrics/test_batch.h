// SPDX-License-Identifier: Apache-2.0
// How many examples are asked about at once.
#pragma once

#include <cstdint>

namespace perennial::continual {

// Test examples a prediction call takes: bounds the memory of an evaluation.
inline constexpr std::int64_t kTestBatch = 1000;

}  // namespace perennial::continual
