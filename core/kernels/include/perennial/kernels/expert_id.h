// SPDX-License-Identifier: Apache-2.0
// Expert ids, and how a kernel finds an expert in the pager's frames.
#pragma once

#include <cstdint>
#include <span>

#include "perennial/kernels/expert_layout.h"

namespace perennial::kernels {

// page -> frame, for all generations a call may read; spans ascend by first_row. An id outside
// every span, or a column at or beyond tiles * tile, is a precondition violated: it is not checked
// here.
struct FrameTable {
  std::span<const PageSpan> spans;
  std::uint32_t tile = 1;          // experts a page
  std::int64_t record_floats = 0;  // words of 4 bytes from one expert to the next within a page

  // The start of an expert's record; of bf16 weights it is a BFloat16*.
  float* record(std::int64_t id) const {
    return record_of(span_of(spans.data(), spans.size(), row_of(id)), tile, record_floats, id);
  }
};

}  // namespace perennial::kernels
