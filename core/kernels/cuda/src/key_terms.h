// SPDX-License-Identifier: Apache-2.0
// A sub-key's gradient from the slots that it won, element by element. Uses are grouped by key as
// the experts' are (use_terms.h), a key's id being (set, key).
#pragma once

#include <cmath>
#include <cstdint>

#include "perennial/kernels/contribution.h"
#include "perennial/kernels/cuda/retrieve.h"
#include "perennial/kernels/expert_layout.h"
#include "perennial/kernels/host_device.h"

namespace perennial::kernels::cuda {

// One side of a retrieval: rows or columns. i is a slot of the flat (B, H, K).
struct KeySlots {
  std::int64_t heads = 1, k = 1, dim = 1;
  bool is_row = true, per_head = true;
  const std::int64_t* ids = nullptr;
  const std::int32_t* row_index = nullptr;
  const float* query = nullptr;    // (B, H, 2 D)
  const float* dscores = nullptr;  // (B, H, K)

  PERENNIAL_HOST_DEVICE std::int64_t id(std::int64_t i) const {
    const std::int64_t head = per_head ? i / k % heads : 0;
    const std::uint32_t key = is_row ? static_cast<std::uint32_t>(row_index[i]) : col_of(ids[i]);
    return expert_id(static_cast<std::uint32_t>(head), key);
  }
  // Element `column` of a key's gradient: sum, and then what the uses add to it, ascending.
  PERENNIAL_HOST_DEVICE float add(float sum, std::int64_t column, const Use* uses,
                                  std::uint32_t count) const {
    const float* half = query + (is_row ? 0 : dim) + column;
    for (std::uint32_t use = 0; use < count; ++use) {
      const std::int64_t i = uses[use].position;
      sum = std::fma(dscores[i], half[i / k * 2 * dim], sum);
    }
    return sum;
  }
};

}  // namespace perennial::kernels::cuda
