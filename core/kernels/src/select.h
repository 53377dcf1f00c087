// SPDX-License-Identifier: Apache-2.0
// The best k of one side's scores, in (score descending, index ascending) order.
#pragma once

#include <cstdint>
#include <vector>

namespace perennial::kernels {

// One side's best entries above minus infinity (NaN counts as minus infinity).
struct Side {
  std::vector<std::uint32_t> index;
  std::vector<float> score;
};

// Scratch of select_top, grown as needed.
struct SelectScratch {
  std::vector<std::uint64_t> keys;
  std::vector<float> maxima;
};

// side: the best min(k, n) of scores[0 .. n) that are above minus infinity. n < 2^32.
void select_top(const float* scores, std::int64_t n, std::int64_t k, SelectScratch& scratch,
                Side& side);

}  // namespace perennial::kernels
