// SPDX-License-Identifier: Apache-2.0
#include "image_filters.h"

#include <ATen/ops/tensor.h>

#include <string>

#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"

namespace perennial::continual {

namespace {

constexpr const char* kImage = "head/image";  // int64: rows, columns
// Philox word of these filters, apart from the gate's.
constexpr std::uint32_t kFilters = 0x48000000;

}  // namespace

ImageFilters::ImageFilters(const ModelOptions& options, std::int64_t features, ImageShape image)
    : image_(image),
      features_(features, image,
                {.kind = FeatureKind::convolution,
                 .filters = options.head_filters,
                 .filter_size = options.head_filter_size,
                 .grid = options.head_grid,
                 .seed = options.peer.seed,
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

void ImageFilters::add_to_commit(storage::CommitRequest& request) const {
  request.dense[kImage] = bytes_from(at::tensor({image_.rows, image_.cols}, at::kLong));
}

}  // namespace perennial::continual
