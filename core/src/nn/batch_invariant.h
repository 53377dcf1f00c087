// SPDX-License-Identifier: Apache-2.0
// Matrix products of which the bits of a row do not depend on the batch around it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace perennial {

// Rows that are worth a thread.
constexpr std::int64_t kRowGrain = 16;

// x: (B, K), weights: (N, K), bias: (N) or undefined, contiguous float32, to x weights' + bias:
// (B, N). Rows are spread over torch's threads.
at::Tensor rows_times(const at::Tensor& x, const at::Tensor& weights, const at::Tensor& bias = {});

}  // namespace perennial
