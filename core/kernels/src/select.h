// SPDX-License-Identifier: Apache-2.0
// The best k of one side's scores, and the order of a few things at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace perennial::kernels {

// One side's best entries above minus infinity (NaN counts as minus infinity), in (score
// descending, index ascending) order.
struct Side {
  std::vector<std::uint32_t> index;
  std::vector<float> score;
  std::size_t size() const { return index.size(); }
};

// Scratch of select_top, grown as needed.
struct SelectScratch {
  std::vector<std::uint64_t> keys;
  std::vector<std::uint32_t> index;
  std::vector<float> maxima;
  std::vector<std::uint8_t> marks;
};

// side: the best min(k, n) of scores[0 .. n) that are above minus infinity. n < 2^32.
void select_top(const float* scores, std::int64_t n, std::int64_t k, SelectScratch& scratch,
                Side& side);

// What rank_keys reads past the last key.
constexpr std::size_t kKeySlack = 8;
// rank[i] = how many other keys are >= keys[i]: where i stands in descending order if no two keys
// are equal; equal keys get the same rank. Costs n^2 compares without a branch. keys has room for
// kKeySlack more, which are overwritten with zeros; no key is 0.
void rank_keys(std::uint64_t* keys, std::int64_t n, std::uint64_t* rank);

}  // namespace perennial::kernels
