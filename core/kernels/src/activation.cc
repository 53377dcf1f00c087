// SPDX-License-Identifier: Apache-2.0
// Activations, score functions (double inside, rounded once) and dropout.
#include <array>
#include <numbers>

#include "activation_math.h"
#include "perennial/kernels/experts.h"
#include "perennial/kernels/philox.h"
#include "philox_math.h"

namespace perennial::kernels {

namespace {

static_assert(math::kInvSqrtPi == std::numbers::inv_sqrtpi);
static_assert(math::kSqrt2 == std::numbers::sqrt2);

}  // namespace

float activate(Activation activation, float x) { return math::activate(activation, x); }

float activate_derivative(Activation activation, float x) {
  return math::activate_derivative(activation, x);
}

void score_forward(ScoreFunction function, std::int64_t heads, std::int64_t k, const float* scores,
                   float* weights, std::int64_t begin, std::int64_t end) {
  if (k <= 0) return;
  for (std::int64_t row = begin * heads; row < end * heads; ++row) {
    math::score_row(function, k, scores + row * k, weights + row * k);
  }
}

void score_backward(ScoreFunction function, std::int64_t heads, std::int64_t k,
                    const float* weights, const float* dweights, float* dscores, std::int64_t begin,
                    std::int64_t end) {
  for (std::int64_t row = begin * heads; row < end * heads; ++row) {
    math::score_row_backward(function, k, weights + row * k, dweights + row * k, dscores + row * k);
  }
}

void dropout(std::uint64_t seed, std::uint64_t draw, double p, const float* in, float* out,
             std::int64_t begin, std::int64_t end) {
  const auto threshold = static_cast<std::uint64_t>(p * 0x1p32);
  const auto scale = static_cast<float>(1 / (1 - p));
  std::array<std::uint32_t, 4> words{};
  for (std::int64_t i = begin; i < end; ++i) {
    if (i == begin || i % 4 == 0) {
      words = philox(seed, {static_cast<std::uint32_t>(i / 4), static_cast<std::uint32_t>(draw),
                            static_cast<std::uint32_t>(draw >> 32), math::kDropoutLane});
    }
    out[i] = words[static_cast<std::size_t>(i % 4)] < threshold ? 0.0f : in[i] * scale;
  }
}

}  // namespace perennial::kernels
