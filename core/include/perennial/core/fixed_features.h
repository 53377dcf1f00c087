// SPDX-License-Identifier: Apache-2.0
// Features of an input that never learn: random projections, and random convolutions of an image.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "perennial/core/options.h"

namespace perennial {

// random: relu(R x + r). convolution: random filters on an image, ReLU, averaged over a grid.
enum class FeatureKind : std::uint8_t { random, convolution };
EnumNames<FeatureKind> enum_names(FeatureKind);

// Rows and columns of the image that an input is, row by row; 0 x 0 when it is none.
struct ImageShape {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

struct FixedFeatureOptions {
  FeatureKind kind = FeatureKind::random;
  std::int64_t count = 1000;  // random: M
  std::int64_t filters = 64;  // convolution: F, square, filter_size wide
  std::int64_t filter_size = 7;
  std::int64_t grid = 4;  // convolution: grid x grid averages a filter, M = F grid^2
  std::int64_t seed = 1;
  std::uint32_t stream = 0x47000000;  // word of Philox's counter that the numbers are drawn for
};

// random:      f(x) = relu(R x + r), R: (M, d_in) ~ N(0, 1/d_in), r: (M) ~ N(0, 1).
// convolution: f(x)[(i grid + j) F + c] = mean over cell (i, j) of relu(w_c * x), w_c: (s, s) ~
//              N(0, 1/s^2), without padding; of n positions along an axis cell i has those from
//              floor(i n / grid) to ceil((i + 1) n / grid), so cells may share one, as torch's
//              adaptive average.
// All numbers come from the seed by Philox. The bits of an input's features depend neither on the
// batch around it nor on the thread count. Immutable; thread-safe. Memory: 4 M d_in bytes, or
// 4 F s^2.
class FixedFeatures {
 public:
  // Throws InvalidOptions for an image that is missing, is not of d_in numbers, or is too small for
  // the filter and the grid.
  FixedFeatures(std::int64_t d_in, ImageShape image, const FixedFeatureOptions& options);

  std::int64_t size() const { return size_; }  // M
  // x: (B, d_in) float32 to (B, M). Throws Error for another shape or type. Cost of an input:
  // O(M d_in), or O(F s^2) for each of its pixels.
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  at::Tensor convolve(const at::Tensor& x) const;

  std::int64_t d_in_;
  ImageShape image_;
  FixedFeatureOptions options_;
  std::int64_t size_;
  at::Tensor weights_;  // random: (M, d_in); convolution: (s^2, F)
  at::Tensor bias_;     // random: (M)
};

}  // namespace perennial
