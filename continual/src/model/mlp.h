// SPDX-License-Identifier: Apache-2.0
// The multilayer perceptron, and the one that grows by columns.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "model/image_filters.h"
#include "perennial/continual/model.h"

namespace perennial::continual {

// What the first layer of a dense model reads: the data's features, or the responses of the run's
// fixed filters (inputs filters), which never change.
class DenseInputs {
 public:
  // Throws InvalidOptions where filters are asked for and the inputs are no images.
  static DenseInputs make(const RunConfig& config, std::int64_t features, ImageShape image);
  // As the store's run has it. Throws StorageError, DataError.
  static DenseInputs load(const RunConfig& config, std::int64_t features,
                          const storage::PageReader& store);

  std::int64_t size() const { return filters_ ? filters_->size() : features_; }
  // x: (B, D) to (B, size()), on the host, without a gradient.
  torch::Tensor operator()(const torch::Tensor& x) const { return filters_ ? (*filters_)(x) : x; }
  void offer(DenseEntries::Offer& offer) const {
    if (filters_) filters_->offer(offer);
  }

 private:
  explicit DenseInputs(std::int64_t features) : features_(features) {}

  std::int64_t features_;
  std::optional<ImageFilters> filters_;
};

// `depth` hidden layers of `hidden` ReLU units, with dropout after each in training; at depth 0 the
// output layer alone. The store knows `learnt_classes` of the classes.
std::unique_ptr<Model> make_mlp(const RunConfig& config, DenseInputs inputs, std::int64_t classes,
                                const Placement& placement);
std::unique_ptr<Model> load_mlp(const RunConfig& config, DenseInputs inputs, std::int64_t classes,
                                const storage::PageReader& store, std::int64_t learnt_classes,
                                const Placement& placement);

// A column of such layers for each experience (progressive networks): layer i > 0 of column k reads
// layer i - 1 of columns 0 to k. Only the newest column trains. Starts with one.
std::unique_ptr<Model> make_columns(const RunConfig& config, DenseInputs inputs,
                                    std::int64_t classes, const Placement& placement);
std::unique_ptr<Model> load_columns(const RunConfig& config, DenseInputs inputs,
                                    std::int64_t classes, const storage::PageReader& store,
                                    const Placement& placement);

}  // namespace perennial::continual
