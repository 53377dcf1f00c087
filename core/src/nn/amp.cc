// SPDX-License-Identifier: Apache-2.0
// Linear layers in mixed precision.
#include "perennial/core/amp.h"

#include <ATen/ops/linear.h>

namespace perennial {

EnumNames<Amp> enum_names(Amp) { return {{Amp::off, "off"}, {Amp::bf16, "bf16"}}; }

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, Amp amp) {
  if (amp == Amp::off) return at::linear(x, weight, bias);
  const auto low = [](const at::Tensor& tensor) { return tensor.to(at::kBFloat16); };
  return at::linear(low(x), low(weight), bias ? std::optional(low(*bias)) : std::nullopt)
      .to(at::kFloat);
}

at::Tensor rounded(const at::Tensor& tensor, Amp amp) {
  if (amp == Amp::off || !tensor.defined()) return tensor;
  return tensor.to(at::kBFloat16).to(at::kFloat);
}

}  // namespace perennial
