// SPDX-License-Identifier: Apache-2.0
// Herding: few examples whose mean stays near the mean of many.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace perennial::continual {

// The first `count` of (n, F) feature vectors by herding (Welling 2009; Rebuffi et al. 2017,
// algorithm 4): the k-th is the one, of those not chosen yet, that brings the mean of the k chosen
// nearest to the mean of all; ties to the first. All of them when there are fewer. Cost: O(count n
// F).
std::vector<std::int64_t> herd(const torch::Tensor& features, std::int64_t count);

}  // namespace perennial::continual
