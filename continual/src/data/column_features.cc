// SPDX-License-Identifier: Apache-2.0
#include "data/column_features.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>

#include <cmath>

namespace perennial::continual {

namespace {

// Philox word of these features, apart from the image filters' and the gate's.
constexpr std::uint32_t kColumns = 0x49000000;
// Deviations up to which a value is about itself. 2 costs wine a point of accuracy, 8 permuted
// digits half a point.
constexpr double kStraight = 4;

torch::Tensor shortened(const torch::Tensor& x) {
  const torch::Tensor rows = x.contiguous();
  torch::Tensor out = at::empty_like(rows);
  const float* in = rows.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < rows.numel(); ++i) {
    const double value = in[i], share = value / kStraight;
    const double fourth = std::sqrt(std::sqrt(1 + share * share));
    to[i] = static_cast<float>(value / (fourth * std::sqrt(fourth)));
  }
  return out;
}

}  // namespace

ColumnFeatures::ColumnFeatures(const ModelOptions& options, std::int64_t columns)
    : random_(columns, {},
              {.kind = FeatureKind::random,
               .count = options.head_width,
               .seed = options.seed,
               .stream = kColumns}),
      fixed_(1 + (columns <= kMostColumns ? columns : 0)) {}

std::vector<std::int64_t> ColumnFeatures::widths() const {
  std::vector<std::int64_t> widths{fixed_};
  for (const std::int64_t part : {16, 4, 1}) {
    const std::int64_t width = fixed_ + random_.size() / part;
    if (width > widths.back()) widths.push_back(width);
  }
  return widths;
}

torch::Tensor ColumnFeatures::operator()(const torch::Tensor& x) const {
  const torch::Tensor short_x = shortened(x), one = at::ones({x.size(0), 1});
  const torch::Tensor random = random_(short_x);
  return fixed_ > 1 ? at::cat({one, short_x, random}, 1) : at::cat({one, random}, 1);
}

}  // namespace perennial::continual
