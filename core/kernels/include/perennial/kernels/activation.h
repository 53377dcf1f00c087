// SPDX-License-Identifier: Apache-2.0
// Names of the activations and of the functions that make weights of scores. C++17, for host and
// device.
#pragma once

#include <cstdint>

namespace perennial::kernels {

// gelu: the exact one, with erf. gelu_tanh: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
// (Hendrycks & Gimpel 2016). silu: x sigmoid(x).
enum class Activation : std::uint8_t { relu, gelu, identity, gelu_tanh, silu };
enum class ScoreFunction : std::uint8_t { softmax, sigmoid, relu, identity };

}  // namespace perennial::kernels
