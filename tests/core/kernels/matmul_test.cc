// SPDX-License-Identifier: Apache-2.0
// Matrix products: the documented order of summation bit for bit, at every awkward size.
#include "perennial/kernels/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "inputs.h"

namespace perennial::kernels {
namespace {

// The definition in matmul.h, word for word.
float lane_dot(std::int64_t k, const float* a, const float* b) {
  float lanes[16] = {};
  for (std::int64_t base = 0; base < k; base += 16) {
    for (std::int64_t l = 0; l < 16; ++l) {
      const bool inside = base + l < k;
      lanes[l] = std::fma(inside ? a[base + l] : 0.0f, inside ? b[base + l] : 0.0f, lanes[l]);
    }
  }
  for (int half = 8; half >= 1; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

struct Shape {
  std::int64_t m, n, k;
};

const std::vector<Shape> kShapes{{0, 5, 3},   {5, 0, 3},   {3, 4, 0},    {1, 1, 1},
                                 {1, 17, 16}, {17, 1, 15}, {4, 4, 16},   {4, 16, 64},
                                 {5, 7, 17},  {8, 9, 31},  {33, 65, 33}, {3, 130, 784},
                                 {70, 3, 1},  {6, 6, 300}, {9, 97, 129}};

TEST(MatmulNt, FollowsItsDefinitionBitForBit) {
  for (const auto& [m, n, k] : kShapes) {
    for (const bool with_bias : {false, true}) {
      SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k);
      const std::int64_t lda = k + 3, ldb = k + 1, ldout = n + 2;
      Misaligned a(uniform(m * lda + 1, 1)), b(uniform(n * ldb + 1, 2)), bias(uniform(n + 1, 3));
      std::vector<float> out(static_cast<std::size_t>(m * ldout + 1), 7.0f);
      std::vector<float> expected = out;
      matmul_nt(m, n, k, a.data(), lda, b.data(), ldb, with_bias ? bias.data() : nullptr,
                out.data(), ldout);
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          const float sum = lane_dot(k, a.data() + i * lda, b.data() + j * ldb);
          expected[static_cast<std::size_t>(i * ldout + j)] =
              with_bias ? sum + bias.data()[j] : sum;
        }
      }
      expect_same_bits(out, expected);
    }
  }
}

TEST(MatmulNt, RowsDoNotDependOnTheBatch) {
  const std::int64_t m = 37, n = 45, k = 100;
  const auto a = uniform(m * k, 1), b = uniform(n * k, 2);
  std::vector<float> whole(static_cast<std::size_t>(m * n)), alone(whole.size());
  matmul_nt(m, n, k, a.data(), k, b.data(), k, nullptr, whole.data(), n);
  for (std::int64_t i = 0; i < m; ++i) {
    matmul_nt(1, n, k, a.data() + i * k, k, b.data(), k, nullptr, alone.data() + i * n, n);
  }
  expect_same_bits(alone, whole);
}

TEST(MatmulNn, FollowsItsDefinitionBitForBit) {
  for (const auto& [m, n, k] : kShapes) {
    for (const bool transposed : {false, true}) {
      for (const bool accumulate : {false, true}) {
        SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k);
        const std::int64_t a_row = transposed ? 1 : k + 3, a_col = transposed ? m + 2 : 1;
        const std::int64_t ldb = n + 1, ldout = n + 2;
        Misaligned a(uniform((m + 3) * (k + 3) + 1, 1)), b(uniform(k * ldb + 1, 2));
        std::vector<float> out = uniform(m * ldout + 1, 3);
        std::vector<float> expected = out;
        matmul_nn(m, n, k, a.data(), a_row, a_col, b.data(), ldb, out.data(), ldout, accumulate);
        for (std::int64_t i = 0; i < m; ++i) {
          for (std::int64_t j = 0; j < n; ++j) {
            float& sum = expected[static_cast<std::size_t>(i * ldout + j)];
            if (!accumulate) sum = 0;
            for (std::int64_t l = 0; l < k; ++l) {
              sum = std::fma(a.data()[i * a_row + l * a_col], b.data()[l * ldb + j], sum);
            }
          }
        }
        expect_same_bits(out, expected);
      }
    }
  }
}

}  // namespace
}  // namespace perennial::kernels
