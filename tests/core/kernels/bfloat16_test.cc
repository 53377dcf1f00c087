// SPDX-License-Identifier: Apache-2.0
// bf16: every value survives, and fp32 rounds to the nearest, ties to even.
#include "perennial/kernels/bfloat16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "inputs.h"

namespace perennial::kernels {
namespace {

TEST(BFloat16, EveryValueSurvives) {
  for (std::uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const BFloat16 value{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(value);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(to_float(to_bfloat16(wide)))) << bits;
    } else {
      EXPECT_EQ(to_bfloat16(wide).bits, bits);
    }
  }
}

TEST(BFloat16, RoundsToTheNearestAndTiesToEven) {
  const auto rounded = [](float value) { return to_float(to_bfloat16(value)); };
  // bf16 has 8 significant bits: its neighbours of 1 are 1 - 2^-8 and 1 + 2^-7.
  EXPECT_EQ(rounded(1 + 0x1p-8f), 1);  // half way: 1 is even
  EXPECT_EQ(rounded(1 + 0x1p-8f + 0x1p-23f), 1 + 0x1p-7f);
  EXPECT_EQ(rounded(1 + 3 * 0x1p-8f), 1 + 0x1p-6f);  // half way, upwards
  EXPECT_EQ(rounded(-1 - 3 * 0x1p-8f), -1 - 0x1p-6f);
  EXPECT_EQ(rounded(1 + 0x1p-8f - 0x1p-23f), 1);
  EXPECT_EQ(rounded(0x1p-134f), 0);  // half of the least: 0 is even
  EXPECT_EQ(rounded(0x1.8p-134f), 0x1p-133f);
  EXPECT_TRUE(std::signbit(rounded(-0.0f)));
  EXPECT_EQ(rounded(std::numeric_limits<float>::max()), INFINITY);
  EXPECT_EQ(rounded(-INFINITY), -INFINITY);
  EXPECT_TRUE(std::isnan(rounded(std::nanf(""))));
  EXPECT_TRUE(std::isnan(rounded(-std::bit_cast<float>(0x7F800001u))));  // not to infinity
  const auto values = uniform(10000, 1);
  for (const float value : values) EXPECT_LE(std::abs(rounded(value) - value), 0x1p-9f);
}

TEST(BFloat16, ConvertsRecords) {
  for (const std::int64_t n : {0, 1, 15, 16, 17, 1000}) {
    const auto values = uniform(n, 2);
    std::vector<BFloat16> stored(values.size());
    std::vector<float> back(values.size());
    round_to_bfloat16(n, values.data(), stored.data());
    promote(n, stored.data(), back.data());
    for (std::size_t i = 0; i < back.size(); ++i) {
      EXPECT_EQ(back[i], to_float(to_bfloat16(values[i])));
    }
  }
}

}  // namespace
}  // namespace perennial::kernels
