// SPDX-License-Identifier: Apache-2.0
// Means and deviations, over all features or for each of them.
#include "data/preprocessing.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

// Rows a thread takes at least: below this, starting threads costs more than it gains.
constexpr std::int64_t kNormaliseGrainRows = 64;

void check_rows(const torch::Tensor& x) {
  if (x.dim() != 2 || !is_feature_type(x.scalar_type())) {
    throw DataError("rows of features must be (N, D) uint8, float32 or float64, not " +
                    std::to_string(x.dim()) + "-d " + std::string(c10::toString(x.scalar_type())));
  }
}

double mean_of_bytes(const torch::Tensor& x, double& deviation) {
  std::array<std::uint64_t, 256> count{};
  const std::uint8_t* values = x.const_data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < x.numel(); ++i) ++count[values[i]];
  const auto n = static_cast<double>(x.numel());
  double sum = 0;
  for (std::size_t v = 0; v < 256; ++v) sum += static_cast<double>(count[v] * v);
  const double mean = sum / n;
  double squares = 0;
  for (std::size_t v = 0; v < 256; ++v) {
    const double distance = static_cast<double>(v) - mean;
    squares += static_cast<double>(count[v]) * distance * distance;
  }
  deviation = std::sqrt(squares / n);
  return mean;
}

// Squares of numbers below kLarge, and sums of these, are finite; larger ones are shrunk, which by
// a power of two rounds nothing.
constexpr double kLarge = 0x1p480, kShrink = 0x1p-544;

// Of values start, start + step, ...; missing ones (NaN) do not count. Without any value: 0 and 0.
template <class T>
double mean_of(const T* values, std::int64_t count, std::int64_t step, double& deviation) {
  double least = std::numeric_limits<double>::infinity(), most = -least;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<double>(values[i * step]);
    if (value < least) least = value;
    if (value > most) most = value;
  }
  deviation = 0;
  if (least >= most) return least > most ? 0 : least;  // a mean of equal values may be rounded
  const double scale = std::max(-least, most) < kLarge ? 1 : kShrink;
  double sum = 0, squares = 0;
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double value = static_cast<double>(values[i * step]) * scale;
    if (std::isnan(value)) continue;
    sum += value;
    ++n;
  }
  const double mean = sum / static_cast<double>(n);
  for (std::int64_t i = 0; i < count; ++i) {
    const double distance = static_cast<double>(values[i * step]) * scale - mean;
    if (!std::isnan(distance)) squares += distance * distance;
  }
  deviation = std::sqrt(squares / static_cast<double>(n)) / scale;
  return mean / scale;
}

void check_fit(double mean, double& deviation) {
  if (!std::isfinite(mean) || !std::isfinite(deviation)) {
    throw DataError("the training features are not all finite numbers");
  }
  if (deviation == 0) deviation = 1;
}

}  // namespace

Normalizer::Normalizer(const Preprocessing& preprocessing)
    : mean_(preprocessing.mean), deviation_(preprocessing.deviation) {
  for (std::size_t v = 0; v < table_.size(); ++v) table_[v] = value(static_cast<double>(v), 0);
  if (preprocessing.means.empty()) return;
  means_ = preprocessing.means.data();
  deviations_ = preprocessing.deviations.data();
}

Preprocessing Preprocessing::fit(const torch::Tensor& x) {
  check_rows(x);
  if (x.numel() == 0) throw DataError("no values to take a mean and a deviation of");
  const torch::Tensor rows = x.contiguous();
  Preprocessing fitted;
  fitted.features = x.size(1);
  if (rows.scalar_type() == at::kByte) {
    fitted.mean = mean_of_bytes(rows, fitted.deviation);
  } else {
    with_features(rows, [&](const auto* values) {
      fitted.mean = mean_of(values, rows.numel(), 1, fitted.deviation);
    });
  }
  check_fit(fitted.mean, fitted.deviation);
  return fitted;
}

Preprocessing Preprocessing::fit_features(const torch::Tensor& x) {
  check_rows(x);
  if (x.numel() == 0) throw DataError("no values to take a mean and a deviation of");
  const torch::Tensor rows = x.contiguous();
  Preprocessing fitted;
  fitted.features = x.size(1);
  with_features(rows, [&](const auto* values) {
    for (std::int64_t j = 0; j < fitted.features; ++j) {
      double deviation = 0;
      const double mean = mean_of(values + j, rows.size(0), fitted.features, deviation);
      check_fit(mean, deviation);
      fitted.means.push_back(mean);
      fitted.deviations.push_back(deviation);
    }
  });
  return fitted;
}

torch::Tensor Preprocessing::apply(const torch::Tensor& x) const {
  check_rows(x);
  if (x.size(1) != features) {
    throw DataError("examples of " + std::to_string(x.size(1)) + " features; the model takes " +
                    std::to_string(features));
  }
  const torch::Tensor rows = x.contiguous();
  torch::Tensor out = at::empty(rows.sizes(), at::kFloat);
  const Normalizer normalize(*this);
  float* to = out.mutable_data_ptr<float>();
  with_features(rows, [&](const auto* in) {
    at::parallel_for(0, rows.size(0), kNormaliseGrainRows,
                     [&](std::int64_t begin, std::int64_t end) {
                       for (std::int64_t i = begin; i < end; ++i) {
                         normalize.row(in + i * features, nullptr, features, to + i * features);
                       }
                     });
  });
  return out;
}

}  // namespace perennial::continual
