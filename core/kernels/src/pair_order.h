// SPDX-License-Identifier: Apache-2.0
// The order of expert pairs by score and id, shared by the fast retrieval and its reference.
#pragma once

#include <cstdint>
#include <limits>

namespace perennial::kernels {

// What a side's score counts as in comparisons: plus infinity as a number above every float, so
// that its pairs still differ by their other side.
inline double order_value(double score) {
  return score == std::numeric_limits<double>::infinity() ? 0x1p160 : score;
}

// Minus infinity and NaN: a pair with such a side comes after all others, by id.
inline bool is_lowest(double score) { return !(score > -std::numeric_limits<double>::infinity()); }

// By row, then column, as unsigned numbers.
inline bool id_before(std::int64_t a, std::int64_t b) {
  return static_cast<std::uint64_t>(a) < static_cast<std::uint64_t>(b);
}

// A pair with no lowest side.
struct Pair {
  double sum = 0;  // order_value(row) + order_value(col), rounded
  double row = 0;
  double col = 0;
  std::int64_t id = 0;

  Pair() = default;
  Pair(double row_score, double col_score, std::int64_t pair_id)
      : row(order_value(row_score)), col(order_value(col_score)), id(pair_id) {
    sum = row + col;
  }
  // What `sum` lost by rounding, exactly (Knuth's two-sum).
  double lost() const {
    const double back = sum - row;
    return (row - (sum - back)) + (col - back);
  }
  // By the exact sum, descending, then id ascending. Exactness is what lets a pair be dropped when
  // K others dominate it on both sides.
  bool before(const Pair& other) const {
    if (sum != other.sum) return sum > other.sum;
    const double mine = lost(), theirs = other.lost();
    if (mine != theirs) return mine > theirs;
    return id_before(id, other.id);
  }
};

}  // namespace perennial::kernels
