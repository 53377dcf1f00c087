// SPDX-License-Identifier: Apache-2.0
#include "model/image_filters.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <string>

#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"

namespace perennial::continual {

namespace {

constexpr const char* kImage = "head/image";  // int64: rows, columns
// Philox word of these filters, apart from the gate's.
constexpr std::uint32_t kFilters = 0x48000000;

// A filter has a place for each average; what the images lack otherwise, the features name.
ImageShape fitting(const ModelOptions& options, ImageShape image) {
  const std::int64_t side = std::min(image.rows, image.cols);
  const std::int64_t largest = side - options.head_grid + 1;
  if (side < 1 || options.head_filter_size <= largest) return image;
  const std::string found = "images of " + std::to_string(image.rows) + " x " +
                            std::to_string(image.cols) + " with head_grid " +
                            std::to_string(options.head_grid);
  if (largest < 1)
    throw InvalidOptions(found + " have no place for filters; use a smaller head_grid");
  throw InvalidOptions("head_filter_size is " + std::to_string(options.head_filter_size) + "; " +
                       found + " allow 1 to " + std::to_string(largest) + " (--head-filter-size " +
                       std::to_string(largest) + ")");
}

}  // namespace

ImageFilters::ImageFilters(const ModelOptions& options, std::int64_t features, ImageShape image)
    : image_(fitting(options, image)),
      features_(features, image,
                {.kind = FeatureKind::convolution,
                 .filters = options.head_filters,
                 .filter_size = options.head_filter_size,
                 .grid = options.head_grid,
                 .seed = options.seed,
                 .stream = kFilters}) {}

std::optional<ImageFilters> ImageFilters::make(const RunConfig& config, std::int64_t features,
                                               ImageShape image) {
  if (config.model.head_filters == 0) return std::nullopt;
  return ImageFilters(config.model, features, image);
}

std::optional<ImageFilters> ImageFilters::load(const RunConfig& config, std::int64_t features,
                                               const storage::PageReader& store) {
  if (config.model.head_filters == 0) return std::nullopt;
  const at::Tensor shape = tensor_from(value_or_throw(store.read_dense(kImage)), kImage);
  if (shape.numel() != 2 || shape.scalar_type() != at::kLong) {
    throw DataError(std::string("dense entry '") + kImage + "' is not an image's shape");
  }
  return make(config, features, {shape[0].item<std::int64_t>(), shape[1].item<std::int64_t>()});
}

void ImageFilters::offer(DenseEntries::Offer& offer) const {
  offer.bytes(kImage, bytes_from(at::tensor({image_.rows, image_.cols}, at::kLong)));
}

}  // namespace perennial::continual
