// SPDX-License-Identifier: Apache-2.0
// Normalising rows of features, with the pixel permutation applied on the way.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "perennial/continual/dataset.h"

namespace perennial::continual {

// The map from a raw value to a model's input, in the form the loops over rows want: a table for
// bytes, the formula for floats. Both give the same bits for the same value. Refers to the
// preprocessing, which must outlive it.
class Normalizer {
 public:
  explicit Normalizer(const Preprocessing& preprocessing);

  // The value of feature j. One that is missing (NaN) is as its mean.
  float value(double raw, std::int64_t j) const {
    if (std::isnan(raw)) return 0;
    if (means_ == nullptr) return static_cast<float>((raw - mean_) / deviation_);
    return static_cast<float>((raw - means_[j]) / deviations_[j]);
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
  double mean_;
  double deviation_;
  const double* means_ = nullptr;  // (D) each, where features have their own
  const double* deviations_ = nullptr;
  std::array<float, 256> table_;
};

}  // namespace perennial::continual
