// SPDX-License-Identifier: Apache-2.0
// What an analytic head reads of inputs that are no images: the columns, and random functions of
// them.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "perennial/continual/run_config.h"
#include "perennial/core/fixed_features.h"

namespace perennial::continual {

// f(x) = (1, s(x), relu(R s(x) + r)) of D columns x that were normalised: a constant, the columns
// (up to kMostColumns of them; of more, none) and head_width random functions, which FixedFeatures
// draws from the model's seed. s(x) = x (1 + x^2/16)^(-3/8) is x near 0 and grows as its fourth
// root: later data may lie hundreds of deviations away from those that means and deviations were
// taken of. Of square roots, products and quotients alone, so that its bits are the same on every
// machine; those of an input do not depend on the batch around it. Immutable; thread-safe.
class ColumnFeatures {
 public:
  // Statistics of the head grow with the square of its features.
  static constexpr std::int64_t kMostColumns = 1024;

  ColumnFeatures(const ModelOptions& options, std::int64_t columns);

  std::int64_t size() const { return fixed_ + random_.size(); }
  // Numbers of first features that a head may choose from: without random ones, or with a
  // sixteenth, a quarter or all of them.
  std::vector<std::int64_t> widths() const;
  // x: (B, D) float32 to (B, size()).
  torch::Tensor operator()(const torch::Tensor& x) const;

 private:
  FixedFeatures random_;
  std::int64_t fixed_;  // those before the random ones
};

}  // namespace perennial::continual
