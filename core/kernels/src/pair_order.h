// SPDX-License-Identifier: Apache-2.0
// The order of expert pairs by score and id, shared by the fast retrievals and their reference.
// C++17, for host and device.
#pragma once

#include <cstdint>

#include "perennial/kernels/host_device.h"

namespace perennial::kernels {

// std::numeric_limits<double>::infinity() is a function of the host's.
constexpr double kInfiniteScore = __builtin_huge_val();

// What a side's score counts as in comparisons: plus infinity as a number above every float, so
// that its pairs still differ by their other side.
PERENNIAL_HOST_DEVICE inline double order_value(double score) {
  return score == kInfiniteScore ? 0x1p160 : score;
}

// Minus infinity and NaN: a pair with such a side comes after all others, by id.
PERENNIAL_HOST_DEVICE inline bool is_lowest(double score) { return !(score > -kInfiniteScore); }

// By row, then column, as unsigned numbers.
PERENNIAL_HOST_DEVICE inline bool id_before(std::int64_t a, std::int64_t b) {
  return static_cast<std::uint64_t>(a) < static_cast<std::uint64_t>(b);
}

// A key whose descending order is (score descending, index ascending); -0 equals 0. Never 0.
PERENNIAL_HOST_DEVICE inline std::uint64_t order_key(float score, std::uint32_t index) {
  auto bits = __builtin_bit_cast(std::uint32_t, score + 0.0f);
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (std::uint64_t{bits} << 32) | (0xFFFFFFFFu - index);
}
PERENNIAL_HOST_DEVICE inline std::uint32_t index_of_key(std::uint64_t key) {
  return 0xFFFFFFFFu - static_cast<std::uint32_t>(key);
}

// A pair with no lowest side.
struct Pair {
  double sum = 0;  // order_value(row) + order_value(col), rounded
  double row = 0;
  double col = 0;
  std::int64_t id = 0;

  Pair() = default;
  PERENNIAL_HOST_DEVICE Pair(double row_score, double col_score, std::int64_t pair_id)
      : row(order_value(row_score)), col(order_value(col_score)), id(pair_id) {
    sum = row + col;
  }
  // What `sum` lost by rounding, exactly (Knuth's two-sum).
  PERENNIAL_HOST_DEVICE double lost() const {
    const double back = sum - row;
    return (row - (sum - back)) + (col - back);
  }
  // By the exact sum, descending, then id ascending. Exactness is what lets a pair be dropped when
  // K others dominate it on both sides.
  PERENNIAL_HOST_DEVICE bool before(const Pair& other) const {
    if (sum != other.sum) return sum > other.sum;
    const double mine = lost(), theirs = other.lost();
    if (mine != theirs) return mine > theirs;
    return id_before(id, other.id);
  }
};

}  // namespace perennial::kernels
