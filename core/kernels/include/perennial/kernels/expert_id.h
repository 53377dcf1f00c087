// SPDX-License-Identifier: Apache-2.0
// Expert ids, and how a kernel finds an expert in the pager's frames.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace perennial::kernels {

// id = row << 32 | col: stable for ever, whatever the grid's size.
constexpr std::int64_t expert_id(std::uint32_t row, std::uint32_t col) {
  return static_cast<std::int64_t>((std::uint64_t{row} << 32) | col);
}
constexpr std::uint32_t row_of(std::int64_t id) {
  return static_cast<std::uint32_t>(static_cast<std::uint64_t>(id) >> 32);
}
constexpr std::uint32_t col_of(std::int64_t id) { return static_cast<std::uint32_t>(id); }

// Layout of one expert's record in a page, in floats: u (d_in), v (d_out), then w (d_in) with GLU,
// padded with zeros to a multiple of 16 floats (64 bytes).
struct ExpertLayout {
  std::int64_t d_in = 0;
  std::int64_t d_out = 0;
  bool glu = false;

  constexpr std::int64_t u() const { return 0; }
  constexpr std::int64_t v() const { return d_in; }
  constexpr std::int64_t w() const { return d_in + d_out; }
  constexpr std::int64_t used() const { return d_in + d_out + (glu ? d_in : 0); }
  constexpr std::int64_t stride() const { return (used() + 15) / 16 * 16; }
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

// page -> frame, for all generations a call may read; spans ascend by first_row. An id outside
// every span, or a column at or beyond tiles * tile, is a precondition violated: it is not checked
// here.
struct FrameTable {
  std::span<const PageSpan> spans;
  std::uint32_t tile = 1;          // experts a page
  std::int64_t record_floats = 0;  // floats from one expert to the next within a page

  float* record(std::int64_t id) const {
    const std::uint32_t row = row_of(id), col = col_of(id);
    const PageSpan* span = spans.data();
    while (row - span->first_row >= span->rows) ++span;  // few generations: a linear walk
    float* frame = span->frames[std::size_t{row - span->first_row} * span->tiles + col / tile];
    return frame + static_cast<std::int64_t>(col % tile) * record_floats;
  }
};

}  // namespace perennial::kernels
