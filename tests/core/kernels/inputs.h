// SPDX-License-Identifier: Apache-2.0
// Inputs and comparisons the kernel tests share.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "perennial/kernels/experts.h"

namespace perennial::kernels {

inline constexpr Activation kActivations[] = {Activation::relu, Activation::gelu,
                                              Activation::gelu_tanh, Activation::silu,
                                              Activation::identity};
inline constexpr ScoreFunction kScoreFunctions[] = {ScoreFunction::softmax, ScoreFunction::sigmoid,
                                                    ScoreFunction::relu, ScoreFunction::identity};

// n values in [-1, 1].
inline std::vector<float> uniform(std::int64_t n, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<float> out(static_cast<std::size_t>(n));
  for (float& value : out) {
    value = static_cast<float>((static_cast<double>(engine()) - 0x1p31) * 0x1p-31);
  }
  return out;
}

// n multiples of 1/8 in [-1, 1]: their products and sums of a few thousand products are exact in
// fp32, so every order of summation gives the same bits. Ties are frequent.
inline std::vector<float> dyadic(std::int64_t n, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<float> out(static_cast<std::size_t>(n));
  for (float& value : out) value = static_cast<float>(static_cast<int>(engine() % 17) - 8) / 8;
  return out;
}

// A copy that starts `offset` floats into its buffer, so that no vector load of it is aligned.
class Misaligned {
 public:
  explicit Misaligned(std::span<const float> values, std::size_t offset = 1)
      : offset_(offset), buffer_(values.size() + offset) {
    std::copy(values.begin(), values.end(), buffer_.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  float* data() { return buffer_.data() + offset_; }

 private:
  std::size_t offset_;
  std::vector<float> buffer_;
};

inline void expect_same_bits(std::span<const float> actual, std::span<const float> expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    std::uint32_t a, e;
    std::memcpy(&a, &actual[i], sizeof a);
    std::memcpy(&e, &expected[i], sizeof e);
    ASSERT_EQ(a, e) << "at " << i << ": " << actual[i] << " instead of " << expected[i];
  }
}

inline void expect_near(std::span<const float> actual, std::span<const float> expected,
                        double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance) << "at " << i;
  }
}

}  // namespace perennial::kernels
