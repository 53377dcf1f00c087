// SPDX-License-Identifier: Apache-2.0
// Where each pixel of a turned image comes from.
#include "stream/rotation.h"

#include <cmath>

namespace perennial::continual {
namespace {

constexpr std::int64_t kParts = 256;  // places are rounded to 1 / kParts of a pixel

// Sine and cosine of degrees by their Taylor series on [-45, 45] (error below 1e-16 there), exact
// for multiples of 90. Only fmod, floor and the four operations, each exactly rounded.
struct SinCos {
  double sin, cos;
};

SinCos sin_cos(double degrees) {
  const double turned = std::fmod(degrees, 360.0);
  const double quarter = std::floor(turned / 90 + 0.5);
  const double x = (turned - 90 * quarter) * (3.14159265358979323846 / 180);
  const double square = x * x;
  double sin = 0, cos = 0;
  for (int n = 9; n >= 1; --n) {
    sin = (1 - sin) * square / ((2.0 * n) * (2.0 * n + 1));
    cos = (1 - cos) * square / ((2.0 * n - 1) * (2.0 * n));
  }
  sin = x * (1 - sin);
  cos = 1 - cos;
  switch ((static_cast<int>(quarter) % 4 + 4) % 4) {
    case 1:
      return {cos, -sin};
    case 2:
      return {-sin, -cos};
    case 3:
      return {-cos, sin};
    default:
      return {sin, cos};
  }
}

}  // namespace

RotationMap::RotationMap(std::int64_t rows, std::int64_t cols, double degrees)
    : taps_(static_cast<std::size_t>(rows * cols)) {
  const SinCos turn = sin_cos(degrees);
  const double middle_row = static_cast<double>(rows - 1) / 2;
  const double middle_col = static_cast<double>(cols - 1) / 2;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) {
      const double right = static_cast<double>(c) - middle_col;
      const double up = middle_row - static_cast<double>(r);
      const double from_col = middle_col + (right * turn.cos + up * turn.sin);
      const double from_row = middle_row - (up * turn.cos - right * turn.sin);
      const auto in_parts = [](double place) {
        return static_cast<std::int64_t>(std::floor(place * kParts + 0.5));
      };
      const std::int64_t row_parts = in_parts(from_row), col_parts = in_parts(from_col);
      // Towards minus infinity, also below zero.
      const std::int64_t top = row_parts >> 8, left = col_parts >> 8;
      const std::int64_t down = row_parts & (kParts - 1), across = col_parts & (kParts - 1);
      Taps& taps = taps_[static_cast<std::size_t>(r * cols + c)];
      for (std::size_t k = 0; k < 4; ++k) {
        const bool lower = k >= 2, later = k % 2 == 1;
        const std::int64_t row = top + (lower ? 1 : 0), col = left + (later ? 1 : 0);
        const bool inside = row >= 0 && row < rows && col >= 0 && col < cols;
        taps.pixel[k] = inside ? static_cast<std::uint32_t>(row * cols + col) : 0;
        taps.weight[k] = inside ? static_cast<std::int32_t>((lower ? down : kParts - down) *
                                                            (later ? across : kParts - across))
                                : 0;
      }
    }
  }
}

}  // namespace perennial::continual
