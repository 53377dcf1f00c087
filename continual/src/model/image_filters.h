// SPDX-License-Identifier: Apache-2.0
// The fixed random filters of a run: what the analytic head reads, and a dense model with inputs
// filters.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <optional>

#include "perennial/continual/run_config.h"
#include "perennial/core/dense_entries.h"
#include "perennial/core/fixed_features.h"
#include "perennial/storage/page_store.h"

namespace perennial::continual {

// head_filters random convolutions of head_filter_size pixels, averaged to head_grid x head_grid,
// of the model's seed: the same numbers, to the bit, whoever reads them. They are not stored, only
// the image's shape is.
class ImageFilters {
 public:
  // Nothing for head_filters 0. Throws InvalidOptions for inputs that are no images.
  static std::optional<ImageFilters> make(const RunConfig& config, std::int64_t features,
                                          ImageShape image);
  // The same of the images that the store's run has. Throws StorageError, DataError.
  static std::optional<ImageFilters> load(const RunConfig& config, std::int64_t features,
                                          const storage::PageReader& store);

  std::int64_t size() const { return features_.size(); }
  // x: (B, D) to (B, size()).
  torch::Tensor operator()(const torch::Tensor& x) const { return features_(x); }
  void offer(DenseEntries::Offer& offer) const;

 private:
  ImageFilters(const ModelOptions& options, std::int64_t features, ImageShape image);

  ImageShape image_;
  FixedFeatures features_;
};

}  // namespace perennial::continual
