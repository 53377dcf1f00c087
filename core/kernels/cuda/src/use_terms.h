// SPDX-License-Identifier: Apache-2.0
// An expert's gradient from its uses, element by element, and the index arithmetic that groups
// uses by expert.
#pragma once

#include <cmath>
#include <cstdint>

#include "perennial/kernels/contribution.h"
#include "perennial/kernels/cuda/optimizer.h"
#include "perennial/kernels/expert_layout.h"
#include "perennial/kernels/host_device.h"

namespace perennial::kernels::cuda {

// Where one use is read: its rows, and the coefficients of its neurons. (Without initial values,
// because it lies in shared memory.)
struct UseRows {
  const float *x, *dy, *cu, *cv, *cw;
};
PERENNIAL_HOST_DEVICE inline UseRows rows_of_use(const ExpertLayout& layout,
                                                 const Contribution* contributions, Use use) {
  const Contribution& from = contributions[use.contribution];
  const std::int64_t token = use.position / static_cast<std::uint32_t>(from.slots);
  const std::int64_t at = use.position * layout.width;
  return {from.x + token * layout.d_in, from.dy + token * layout.d_out, from.cu + at, from.cv + at,
          from.cw == nullptr ? nullptr : from.cw + at};
}

// What element i of a record's gradient is made of: coefficient `neuron` of u, v or w, times
// element `column` of x (u, w) or dy (v).
struct GradientElement {
  int part = 0;  // 0: u, 1: v, 2: w
  std::int64_t neuron = 0, column = 0;
};
PERENNIAL_HOST_DEVICE inline GradientElement gradient_element(const ExpertLayout& layout,
                                                              std::int64_t i) {
  GradientElement out;
  out.part = (i >= layout.v()) + (i >= layout.w());
  out.column = i - (out.part == 0 ? 0 : out.part == 1 ? layout.v() : layout.w());
  if (layout.width > 1) {
    const std::int64_t n = out.part == 1 ? layout.d_out : layout.d_in;
    out.neuron = out.column / n;
    out.column -= out.neuron * n;
  }
  return out;
}

PERENNIAL_HOST_DEVICE inline float coefficient_of(const UseRows& use, const GradientElement& e) {
  return (e.part == 0 ? use.cu : e.part == 1 ? use.cv : use.cw)[e.neuron];
}
PERENNIAL_HOST_DEVICE inline const float* factors_of(const UseRows& use, const GradientElement& e) {
  return (e.part == 1 ? use.dy : use.x) + e.column;
}

// Uses grouped by expert: keys (row within the generation, column) side by side in as few bits as
// they need, one bit more for what is left out.
struct UseKeys {
  std::uint32_t first_row = 0, rows = 1;
  int col_bits = 0, bits = 0;  // bits: of the sentinel, too

  explicit UseKeys(const OpenGeneration& generation)
      : first_row(generation.first_row), rows(generation.rows) {
    while (col_bits < 32 && (std::uint64_t{generation.cols} - 1) >> col_bits != 0) ++col_bits;
    int row_bits = 0;
    while (row_bits < 32 && (std::uint64_t{rows} - 1) >> row_bits != 0) ++row_bits;
    bits = col_bits + row_bits + 1;
  }
  PERENNIAL_HOST_DEVICE std::uint64_t sentinel() const { return std::uint64_t{1} << (bits - 1); }
  PERENNIAL_HOST_DEVICE std::uint64_t key(std::int64_t id) const {
    const std::uint32_t row = row_of(id) - first_row;
    return row >= rows ? sentinel() : std::uint64_t{row} << col_bits | col_of(id);
  }
  PERENNIAL_HOST_DEVICE std::int64_t id(std::uint64_t key) const {
    return expert_id(first_row + static_cast<std::uint32_t>(key >> col_bits),
                     static_cast<std::uint32_t>(key & ((std::uint64_t{1} << col_bits) - 1)));
  }
  // Of sorted keys: whether place i begins an expert.
  PERENNIAL_HOST_DEVICE bool begins(const std::uint64_t* keys, std::int64_t i) const {
    return keys[i] != sentinel() && (i == 0 || keys[i] != keys[i - 1]);
  }
  // What place i writes; experts_to_here: how many experts begin at places 0 .. i.
  PERENNIAL_HOST_DEVICE void scatter(const std::uint64_t* keys, std::int64_t n, std::int64_t i,
                                     std::uint32_t experts_to_here, const ExpertUses& out) const {
    if (begins(keys, i)) {
      out.ids[experts_to_here - 1] = id(keys[i]);
      out.offsets[experts_to_here - 1] = static_cast<std::uint32_t>(i);
    }
    const bool left_out = keys[i] == sentinel();
    const bool first_left_out = left_out && (i == 0 || keys[i - 1] != sentinel());
    if (first_left_out || (!left_out && i == n - 1)) {
      out.offsets[experts_to_here] = static_cast<std::uint32_t>(left_out ? i : n);
      *out.experts = experts_to_here;
    }
  }
};

}  // namespace perennial::kernels::cuda
