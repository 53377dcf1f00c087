// SPDX-License-Identifier: Apache-2.0
// Mixed precision of the dense part: what its matrix products are computed in.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "perennial/core/options.h"

namespace perennial {

// bf16: operands and results of dense products are rounded to bfloat16, to the nearest, and queries
// and sub-keys for their scores; everything between products, gradients at rest and weights are
// float32, and so are the sums within a product (on CUDA with LibTorch's
// setAllowBF16ReductionCuBLAS(false), which the program calls).
enum class Amp : std::uint8_t { off, bf16 };
EnumNames<Amp> enum_names(Amp);

// x weight' + bias, (B, out) float32 of x: (B, in), weight: (out, in) and bias: (out), float32,
// with gradients: through the matrix products of LibTorch, on the tensors' device. bf16: the casts
// that LibTorch's autocast puts around a linear layer, forward and backward.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, Amp amp);

// What a float32 tensor is once such a product has read or written it; undefined stays undefined.
at::Tensor rounded(const at::Tensor& tensor, Amp amp);

}  // namespace perennial
