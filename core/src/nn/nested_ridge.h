// SPDX-License-Identifier: Apache-2.0
// Ridge regression on as many of the first features as their sums say are worth it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "nn/ridge.h"

namespace perennial {

struct NestedRidge {
  std::int64_t width = 0;  // m: features that are used, the first ones
  double ridge = 0;
  at::Tensor weights;  // (m, C) float64
};

// Of the regressions on the first m features, m one of `widths`, and of the strengths 10^(k/2), k
// from -12 to 6, times the mean of the features' squares, the one with the least
//   n RSS / (n - 1.4 df)^2,
// generalised cross validation as in ridge.h but with a higher price of a degree of freedom df:
// where features are as many as inputs the plain one may choose to fit everything (Kim & Gu 2004,
// J. R. Stat. Soc. B 66, recommend 1.2 to 1.4). Ties go to fewer features, then to the
// larger strength. A function of the sums alone. `widths` ascend, from 1 or more to M. Without
// inputs: the first width, weights 0. Cost: one symmetric eigendecomposition a width, about 9 m^3
// operations, whatever the number of strengths; memory 24 m^2 bytes.
NestedRidge nested_ridge(const RidgeSums& sums, at::IntArrayRef widths);

}  // namespace perennial
