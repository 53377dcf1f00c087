// SPDX-License-Identifier: Apache-2.0
// Random projections and random convolutions.
#include "perennial/core/fixed_features.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "nn/batch_invariant.h"
#include "perennial/core/error.h"
#include "perennial/kernels/matmul.h"
#include "perennial/kernels/philox.h"

namespace perennial {

EnumNames<FeatureKind> enum_names(FeatureKind) {
  return {{FeatureKind::random, "random"}, {FeatureKind::convolution, "convolution"}};
}

namespace {

// Positions [begin, end) that cell i of `cells` averages, of n along an axis.
struct Cell {
  std::int64_t begin, end;
  bool has(std::int64_t position) const { return begin <= position && position < end; }
};
Cell cell_of(std::int64_t i, std::int64_t cells, std::int64_t n) {
  return {i * n / cells, ((i + 1) * n + cells - 1) / cells};
}

at::Tensor normal(std::int64_t seed, std::uint32_t stream, double scale, at::IntArrayRef sizes) {
  at::Tensor tensor = at::empty(sizes);
  kernels::fill_normal(
      static_cast<std::uint64_t>(seed), 0, 0, stream, static_cast<float>(scale),
      {tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())});
  return tensor;
}

void require_image(std::int64_t d_in, ImageShape image, const FixedFeatureOptions& options) {
  const std::string shape = std::to_string(image.rows) + " x " + std::to_string(image.cols);
  if (image.rows < 1 || image.cols < 1) {
    throw InvalidOptions("features convolution need images; the data have no rows and columns");
  }
  if (image.rows * image.cols != d_in) {
    throw InvalidOptions("images of " + shape + " do not have the " + std::to_string(d_in) +
                         " numbers of an input");
  }
  const std::int64_t smallest = std::min(image.rows, image.cols) - options.filter_size + 1;
  if (smallest < options.grid) {
    throw InvalidOptions("images of " + shape + " are too small for filters of " +
                         std::to_string(options.filter_size) + " averaged to " +
                         std::to_string(options.grid) + " x " + std::to_string(options.grid));
  }
}

}  // namespace

FixedFeatures::FixedFeatures(std::int64_t d_in, ImageShape image,
                             const FixedFeatureOptions& options)
    : d_in_(d_in), image_(image), options_(options) {
  if (d_in_ < 1) {
    throw InvalidOptions("inputs have " + std::to_string(d_in_) + " numbers; they need 1 or more");
  }
  if (options_.kind == FeatureKind::random) {
    size_ = options_.count;
    weights_ = normal(options_.seed, options_.stream, 1 / std::sqrt(static_cast<double>(d_in_)),
                      {size_, d_in_});
    bias_ = normal(options_.seed, options_.stream + 1, 1, {size_});
    return;
  }
  require_image(d_in, image, options_);
  size_ = options_.filters * options_.grid * options_.grid;
  weights_ =
      normal(options_.seed, options_.stream + 2, 1 / static_cast<double>(options_.filter_size),
             {options_.filter_size * options_.filter_size, options_.filters});
}

at::Tensor FixedFeatures::operator()(const at::Tensor& x) const {
  if (x.dim() != 2 || x.size(1) != d_in_ || x.scalar_type() != at::kFloat || !x.is_cpu()) {
    throw Error("the features expect CPU float32 (B, " + std::to_string(d_in_) + "), not " +
                std::string(c10::toString(x.scalar_type())) + " " + c10::str(x.sizes()) + " on " +
                x.device().str());
  }
  const at::Tensor rows = x.contiguous();
  return options_.kind == FeatureKind::random ? rows_times(rows, weights_, bias_).relu_()
                                              : convolve(rows);
}

at::Tensor FixedFeatures::convolve(const at::Tensor& x) const {
  const std::int64_t side = options_.filter_size, taps = side * side, filters = options_.filters;
  const std::int64_t grid = options_.grid;
  const std::int64_t height = image_.rows - side + 1, width = image_.cols - side + 1;
  at::Tensor features = at::zeros({x.size(0), size_});
  const float* weights = weights_.const_data_ptr<float>();
  at::parallel_for(0, x.size(0), 4, [&](auto begin, auto end) {
    std::vector<float> patches(static_cast<std::size_t>(width * taps));
    std::vector<float> responses(static_cast<std::size_t>(width * filters));
    for (std::int64_t image = begin; image < end; ++image) {
      const float* pixels = x.const_data_ptr<float>() + image * d_in_;
      float* out = features.mutable_data_ptr<float>() + image * size_;
      for (std::int64_t row = 0; row < height; ++row) {
        for (std::int64_t col = 0; col < width; ++col) {
          for (std::int64_t line = 0; line < side; ++line) {
            std::copy_n(pixels + (row + line) * image_.cols + col, side,
                        patches.data() + col * taps + line * side);
          }
        }
        kernels::matmul_nn(width, filters, taps, patches.data(), taps, 1, weights, filters,
                           responses.data(), filters, false);
        for (float& response : responses) response = std::max(response, 0.0F);
        for (std::int64_t i = 0; i < grid; ++i) {
          if (!cell_of(i, grid, height).has(row)) continue;
          for (std::int64_t j = 0; j < grid; ++j) {
            const Cell columns = cell_of(j, grid, width);
            float* sums = out + (i * grid + j) * filters;
            for (std::int64_t col = columns.begin; col < columns.end; ++col) {
              const float* response = responses.data() + col * filters;
              for (std::int64_t c = 0; c < filters; ++c) sums[c] += response[c];
            }
          }
        }
      }
      for (std::int64_t i = 0; i < grid; ++i) {
        const Cell lines = cell_of(i, grid, height);
        for (std::int64_t j = 0; j < grid; ++j) {
          const Cell columns = cell_of(j, grid, width);
          const std::int64_t positions = (lines.end - lines.begin) * (columns.end - columns.begin);
          const float scale = 1.0F / static_cast<float>(positions);
          float* sums = out + (i * grid + j) * filters;
          for (std::int64_t c = 0; c < filters; ++c) sums[c] *= scale;
        }
      }
    }
  });
  return features;
}

}  // namespace perennial
