// SPDX-License-Identifier: Apache-2.0
// Philox against its published vectors, the normal quantile, and the golden bits of initial values.
#include "perennial/kernels/philox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "inputs.h"

namespace perennial::kernels {
namespace {

using testing::ElementsAre;

// Known answers of Random123, kat_vectors, philox4x32 10.
TEST(Philox, KnownAnswers) {
  EXPECT_THAT(philox(0, {0, 0, 0, 0}),
              ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  EXPECT_THAT(philox(~std::uint64_t{0}, {~0u, ~0u, ~0u, ~0u}),
              ElementsAre(0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  EXPECT_THAT(philox(0x299f31d0a4093822ull, {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}),
              ElementsAre(0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

TEST(NormalQuantile, InvertsTheDistribution) {
  std::vector<std::uint32_t> words{0,           1,           2,           1000,        0x13333332u,
                                   0x13333333u, 0x13333334u, 0x7FFFFFFFu, 0x80000000u, 0xECCCCCCBu,
                                   0xECCCCCCCu, 0xFFFFFFFEu, 0xFFFFFFFFu};
  for (std::uint64_t w = 0; w < (std::uint64_t{1} << 32); w += 1234577) {
    words.push_back(static_cast<std::uint32_t>(w));
  }
  for (const std::uint32_t word : words) {
    const double z = normal_quantile(word);
    const double below = (word + 0.5) * 0x1p-32, above = (0xFFFFFFFFu - word + 0.5) * 0x1p-32;
    const double p = std::min(below, above);
    // PPND7 is off by at most 7e-7 here; the density turns that into an error of p.
    const double density = std::exp(-0.5 * z * z) / std::sqrt(2 * M_PI);
    const double q = 0.5 * std::erfc(std::abs(z) / std::sqrt(2.0));
    ASSERT_NEAR(q, p, 1e-6 * density + 1e-15) << word;
    ASSERT_EQ(z < 0, word < 0x80000000u) << word;
    ASSERT_EQ(z, -normal_quantile(0xFFFFFFFFu - word)) << word;
  }
}

std::uint32_t word_of(std::uint64_t seed, std::size_t i) {
  return philox(seed, {static_cast<std::uint32_t>(i / 4), 5, 6, 7})[i % 4];
}

TEST(Fill, ElementsAreTheirWords) {
  const std::uint64_t seed = 0x123456789ABCDEFull;
  for (const std::size_t n : {0u, 1u, 3u, 4u, 127u, 128u, 129u, 1000u}) {
    std::vector<float> normal(n), flat(n);
    fill_normal(seed, 5, 6, 7, 0.02f, normal);
    fill_uniform(seed, 5, 6, 7, 0.5f, flat);
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint32_t word = word_of(seed, i);
      ASSERT_EQ(normal[i], static_cast<float>(double{0.02f} * normal_quantile(word)));
      ASSERT_EQ(flat[i], static_cast<float>(0.5 * (word - 0x1p31) * 0x1p-31));
      ASSERT_LE(std::abs(flat[i]), 0.5f);
    }
  }
}

// Stores hold recipes instead of values: these bits may never change.
TEST(Fill, GoldenBits) {
  std::vector<float> normal(8), flat(8);
  fill_normal(42, 1, 2, 3, 0.0625f, normal);
  fill_uniform(42, 1, 2, 3, 0.0625f, flat);
  std::vector<std::uint32_t> normal_bits, flat_bits;
  for (const float value : normal) normal_bits.push_back(std::bit_cast<std::uint32_t>(value));
  for (const float value : flat) flat_bits.push_back(std::bit_cast<std::uint32_t>(value));
  EXPECT_THAT(normal_bits, ElementsAre(0x3d6c9dc7u, 0xbb8ef304u, 0xbdcd2a02u, 0x3d862a88u,
                                       0xbd2dabb8u, 0x3d5c0c28u, 0x3cf86dcbu, 0xbd2ed858u));
  EXPECT_THAT(flat_bits, ElementsAre(0x3d25087du, 0xbb63edd0u, 0xbd641a9cu, 0x3d3497c9u,
                                     0xbd00a2b7u, 0x3d1c26e8u, 0x3cbeb4fau, 0xbd0160fau));
  EXPECT_EQ(std::bit_cast<std::uint64_t>(normal_quantile(0)), 0xc0195a11830fcb47ull);
  EXPECT_EQ(std::bit_cast<std::uint64_t>(normal_quantile(0x40000000u)), 0xbfe5956b9408a78full);

  std::vector<float> many(100000);
  fill_normal(7, 0, 0, 0, 1.0f, many);
  std::uint64_t digest = 0xcbf29ce484222325ull;  // FNV-1a over words
  for (const float value : many) {
    digest = (digest ^ std::bit_cast<std::uint32_t>(value)) * 0x100000001b3ull;
  }
  EXPECT_EQ(digest, 0x16555c5a046050a6ull);
}

TEST(Fill, NormalMoments) {
  std::vector<float> values(1 << 20);
  fill_normal(3, 0, 0, 0, 1.0f, values);
  double sum = 0, squares = 0, fourth = 0;
  for (const double value : values) {
    sum += value;
    squares += value * value;
    fourth += value * value * value * value;
  }
  const auto n = static_cast<double>(values.size());
  EXPECT_NEAR(sum / n, 0, 5e-3);  // five standard deviations of the mean
  EXPECT_NEAR(squares / n, 1, 7e-3);
  EXPECT_NEAR(fourth / n, 3, 5e-2);
}

TEST(RandomStream, ResumesAnywhere) {
  RandomStream stream(9, 0x100000002ull);
  std::vector<std::uint32_t> words;
  for (int i = 0; i < 11; ++i) words.push_back(stream.next());
  EXPECT_EQ(stream.position(), 11u);
  EXPECT_EQ(words[6], philox(9, {1, 0, 2, 1})[2]);
  for (std::size_t at = 0; at < words.size(); ++at) {
    RandomStream resumed(9, 0x100000002ull, at);
    EXPECT_EQ(resumed.next(), words[at]);
  }
  RandomStream far(9, 0, (std::uint64_t{1} << 34) + 1);
  EXPECT_EQ(far.next(), philox(9, {0, 1, 0, 0})[1]);
}

TEST(RandomStream, BelowStaysBelow) {
  RandomStream stream(1);
  for (const std::uint32_t bound : {1u, 2u, 3u, 10u, 0x80000001u, 0xFFFFFFFFu}) {
    for (int i = 0; i < 1000; ++i) ASSERT_LT(stream.below(bound), bound);
  }
  std::vector<int> counts(5);
  for (int i = 0; i < 50000; ++i) ++counts[stream.below(5)];
  for (const int count : counts) EXPECT_NEAR(count, 10000, 450);  // five standard deviations
}

TEST(Shuffle, IsAPermutationThatDependsOnSeedAndLane) {
  for (const std::size_t n : {0u, 1u, 2u, 1000u}) {
    std::vector<std::uint32_t> order(n), again(n), other(n), lane(n), ascending(n);
    shuffled_indices(1, 2, order);
    shuffled_indices(1, 2, again);
    shuffled_indices(2, 2, other);
    shuffled_indices(1, 3, lane);
    EXPECT_EQ(order, again);
    if (n == 1000) {
      EXPECT_NE(order, other);
      EXPECT_NE(order, lane);
    }
    std::iota(ascending.begin(), ascending.end(), 0u);
    EXPECT_TRUE(std::is_permutation(order.begin(), order.end(), ascending.begin()));
  }
  // All six orders of three appear.
  std::set<std::vector<std::uint32_t>> orders;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    std::vector<std::uint32_t> order(3);
    shuffled_indices(seed, 0, order);
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 6u);
}

}  // namespace
}  // namespace perennial::kernels
