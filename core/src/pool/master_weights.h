// SPDX-License-Identifier: Apache-2.0
// The fp32 master of bf16 weights: what an optimizer updates. A weight of 8 significant bits would
// lose every update below 2^-9 of itself. The master is the last part of an expert's state record.
#pragma once

#include <cstdint>

#include "perennial/kernels/bfloat16.h"
#include "perennial/kernels/expert_id.h"

namespace perennial {

// Floats that the master takes in a state record; 0 for weights that are their own master.
inline std::int64_t master_floats(const kernels::ExpertLayout& layout) {
  return layout.type == kernels::WeightType::bf16 ? layout.stride() : 0;
}

// The fp32 weights (stride) that an update is to change. `record`: the expert's in a page of
// weights; `master`: its place in the state record; `steps`: the updates so far. Before the first,
// the master is the promoted weight.
inline float* weights_to_update(const kernels::ExpertLayout& layout, float* record, float* master,
                                std::uint32_t steps) {
  if (layout.type != kernels::WeightType::bf16) return record;
  if (steps == 0) {
    kernels::promote(layout.stride(), reinterpret_cast<kernels::BFloat16*>(record), master);
  }
  return master;
}

// After the update: rounds what weights_to_update() gave into the record.
inline void store_updated(const kernels::ExpertLayout& layout, const float* weights,
                          float* record) {
  if (layout.type != kernels::WeightType::bf16) return;
  kernels::round_to_bfloat16(layout.stride(), weights,
                             reinterpret_cast<kernels::BFloat16*>(record));
}

}  // namespace perennial
