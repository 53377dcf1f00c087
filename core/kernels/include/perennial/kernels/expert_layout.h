// SPDX-License-Identifier: Apache-2.0
// Expert ids, the layout of an expert's record, and where in the frames it lies. C++17, for host
// and device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "perennial/kernels/host_device.h"

namespace perennial::kernels {

// id = row << 32 | col: stable for ever, whatever the grid's size.
PERENNIAL_HOST_DEVICE constexpr std::int64_t expert_id(std::uint32_t row, std::uint32_t col) {
  return static_cast<std::int64_t>((std::uint64_t{row} << 32) | col);
}
PERENNIAL_HOST_DEVICE constexpr std::uint32_t row_of(std::int64_t id) {
  return static_cast<std::uint32_t>(static_cast<std::uint64_t>(id) >> 32);
}
PERENNIAL_HOST_DEVICE constexpr std::uint32_t col_of(std::int64_t id) {
  return static_cast<std::uint32_t>(id);
}

// Element type of the experts' weights. Whatever it is, sums, gradients and optimizer state are
// fp32.
enum class WeightType : std::uint8_t { f32, bf16 };

// Layout of one expert's record in a page, in elements: u (r, d_in), v (r, d_out), then w (r, d_in)
// with GLU, padded with zeros to a multiple of 64 bytes. r = width: neurons an expert.
struct ExpertLayout {
  std::int64_t d_in = 0;
  std::int64_t d_out = 0;
  bool glu = false;
  std::int64_t width = 1;
  WeightType type = WeightType::f32;

  PERENNIAL_HOST_DEVICE constexpr std::int64_t u() const { return 0; }
  PERENNIAL_HOST_DEVICE constexpr std::int64_t v() const { return width * d_in; }
  PERENNIAL_HOST_DEVICE constexpr std::int64_t w() const { return width * (d_in + d_out); }
  PERENNIAL_HOST_DEVICE constexpr std::int64_t used() const {
    return width * (d_in + d_out + (glu ? d_in : 0));
  }
  PERENNIAL_HOST_DEVICE constexpr std::int64_t stride() const {
    const std::int64_t line = 64 / element_bytes();
    return (used() + line - 1) / line * line;
  }
  PERENNIAL_HOST_DEVICE constexpr std::int64_t element_bytes() const {
    return type == WeightType::bf16 ? 2 : 4;
  }
  PERENNIAL_HOST_DEVICE constexpr std::int64_t record_bytes() const {
    return stride() * element_bytes();
  }
  // What FrameTable counts in.
  PERENNIAL_HOST_DEVICE constexpr std::int64_t record_floats() const { return record_bytes() / 4; }
};

// The pages of one generation: rows [first_row, first_row + rows), `tiles` pages a row. The page
// (row, tile) has index (row - first_row) * tiles + tile in `frames`; a page that is not in memory
// has a null frame, and a kernel must not be given one of its experts.
struct PageSpan {
  std::uint32_t first_row = 0;
  std::uint32_t rows = 0;
  std::uint32_t tiles = 0;
  float* const* frames = nullptr;
};

// Which of `count` spans, at least one, that ascend by first_row holds a row: in log2(count) steps,
// since a lifelong pool has many generations. A row outside of every span is not noticed.
PERENNIAL_HOST_DEVICE inline const PageSpan* span_of(const PageSpan* spans, std::size_t count,
                                                     std::uint32_t row) {
  while (count > 1) {
    const std::size_t half = count / 2;
    if (spans[half].first_row <= row) spans += half;
    count -= half;
  }
  return spans;
}

// The start of an expert's record: page addressing through the frames of `spans`, which ascend by
// first_row, with `tile` experts a page, `record_floats` words of 4 bytes apart. An id outside
// every span, or a column at or beyond tiles * tile, is a precondition violated: it is not checked
// here.
PERENNIAL_HOST_DEVICE inline float* record_of(const PageSpan* spans, std::uint32_t tile,
                                              std::int64_t record_floats, std::int64_t id) {
  const std::uint32_t row = row_of(id), col = col_of(id);
  const PageSpan* span = spans;
  while (row - span->first_row >= span->rows) ++span;
  float* frame = span->frames[std::size_t{row - span->first_row} * span->tiles + col / tile];
  return frame + static_cast<std::int64_t>(col % tile) * record_floats;
}

}  // namespace perennial::kernels
