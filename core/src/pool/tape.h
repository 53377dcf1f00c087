// SPDX-License-Identifier: Apache-2.0
// What backward passes leave for the sparse optimizer: rows of x and dy with the coefficients of
// the experts that were retrieved, until a step sums them per expert.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "perennial/core/pool.h"
#include "perennial/kernels/experts.h"

namespace perennial {

// Uses of the experts of a generation, grouped by expert.
struct ExpertUses {
  std::vector<std::int64_t> ids;     // (U), ascending by (row, col)
  std::vector<std::size_t> offsets;  // (U + 1), into uses
  std::vector<kernels::Use> uses;    // by expert, then (backward, token, head) ascending
  std::vector<kernels::Contribution> contributions;

  std::span<const kernels::Use> of(std::size_t expert) const {
    return std::span(uses).subspan(offsets[expert], offsets[expert + 1] - offsets[expert]);
  }
};

class ExpertTape {
 public:
  struct Entry {
    std::int64_t slots = 0;
    at::Tensor ids;         // (B, S) int64
    at::Tensor x, dy;       // (B, d_in), (B, d_out)
    at::Tensor cu, cv, cw;  // (B, S, r); cw undefined without GLU
  };

  // Throws Error beyond 2^32 slots, which is what a use can number.
  void add(Entry entry);
  void clear() { entries_.clear(); }
  bool empty() const { return entries_.empty(); }
  // The uses of the experts of a generation. The entries must outlive the result. Cost: a radix
  // sort, O(uses) for each 11 bits that number the generation's experts; up to 40 bytes a use,
  // given back before a next backward needs its own: kept, they would add to that peak.
  ExpertUses uses(const Generation& generation) const;

  // Memory for a compact gradient of (rows, cols) float32: what the last one had, unless somebody
  // holds that still or it is too small. Fresh memory would take longer than the gradient.
  at::Tensor gradient_memory(std::int64_t rows, std::int64_t cols);
  void release_gradient_memory() { gradient_memory_.reset(); }

 private:
  std::vector<Entry> entries_;
  at::Tensor gradient_memory_;  // flat
};

}  // namespace perennial
