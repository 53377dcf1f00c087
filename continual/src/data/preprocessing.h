// SPDX-License-Identifier: Apache-2.0
// Normalising rows of features, with the pixel permutation applied on the way.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "perennial/continual/dataset.h"

namespace perennial::continual {

// Whether rows of features may have this type: uint8, float32 or float64.
inline bool is_feature_type(at::ScalarType type) {
  return type == at::kByte || type == at::kFloat || type == at::kDouble;
}

// Calls f with a pointer to the values of x, which is contiguous and of such a type.
template <class F>
void with_features(const torch::Tensor& x, const F& f) {
  if (x.scalar_type() == at::kByte) {
    f(x.const_data_ptr<std::uint8_t>());
  } else if (x.scalar_type() == at::kFloat) {
    f(x.const_data_ptr<float>());
  } else {
    f(x.const_data_ptr<double>());
  }
}

// The map from a raw value to a model's input, in the form the loops over rows want: a table for
// bytes, the formula for floats. Both give the same bits for the same value. Refers to the
// preprocessing, which must outlive it.
class Normalizer {
 public:
  // Deviations from the mean beyond which nothing is further: sums of squares of inputs stay
  // numbers of 32 bits.
  static constexpr double kFurthest = 1e15;

  explicit Normalizer(const Preprocessing& preprocessing);

  // The value of feature j. One that is missing (NaN) is as its mean.
  float value(double raw, std::int64_t j) const {
    if (std::isnan(raw)) return 0;
    return means_ == nullptr ? scaled(raw, mean_, deviation_)
                             : scaled(raw, means_[j], deviations_[j]);
  }

  // out[j] = normalised in[order[j]], or in[j] without an order. D values; about a microsecond for
  // 784 bytes.
  template <class T>
  void row(const T* in, const std::uint32_t* order, std::int64_t features, float* out) const {
    for (std::int64_t j = 0; j < features; ++j) {
      const T raw = in[order == nullptr ? j : static_cast<std::int64_t>(order[j])];
      if constexpr (std::is_same_v<T, std::uint8_t>) {
        out[j] = means_ == nullptr ? table_[raw] : value(raw, j);
      } else {
        out[j] = value(static_cast<double>(raw), j);
      }
    }
  }

 private:
  static float scaled(double raw, double mean, double deviation) {
    double distance = (raw - mean) / deviation;
    // Of opposite ends of the doubles; halves of such numbers are exact.
    if (std::isinf(raw - mean)) distance = (raw / 2 - mean / 2) / (deviation / 2);
    return static_cast<float>(std::clamp(distance, -kFurthest, kFurthest));
  }

  double mean_;
  double deviation_;
  const double* means_ = nullptr;  // (D) each, where features have their own
  const double* deviations_ = nullptr;
  std::array<float, 256> table_;
};

}  // namespace perennial::continual
