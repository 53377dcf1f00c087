// SPDX-License-Identifier: Apache-2.0
// Mean, spread and t-interval of values worked out by hand and with a table of Student's t.
#include "perennial/continual/statistics.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

TEST(SeedStatistics, OfThreeSeeds) {
  constexpr std::array kValues = {0.80, 0.82, 0.87};
  const SeedStatistics s = statistics_of(kValues);
  EXPECT_EQ(s.n, 3);
  EXPECT_NEAR(s.mean, 0.83, 1e-15);
  // deviations -.03, -.01, .04: squares sum to .0026, over 2
  EXPECT_NEAR(s.sd.value(), 0.036055512754639891, 1e-15);
  EXPECT_NEAR(s.sem.value(), 0.020816659994661326, 1e-15);
  // With two degrees of freedom t(p) = (2p - 1) sqrt(2 / (1 - (2p - 1)^2)).
  const double t = 0.95 * std::sqrt(2 / (1 - 0.95 * 0.95));
  EXPECT_NEAR(s.t95.value(), 0.020816659994661326 * t, 1e-14);
}

TEST(SeedStatistics, TheIntervalFollowsTheTableOfStudentsT) {
  // Two-sided 95%: 12.706 for one degree of freedom, 2.776 for 4, 2.093 for 19.
  const auto factor = [](int n) {
    std::vector<double> values(static_cast<std::size_t>(n), 0.5);
    values[0] = 0.7;
    const SeedStatistics s = statistics_of(values);
    return s.t95.value() / s.sem.value();
  };
  EXPECT_NEAR(factor(2), 12.706, 5e-4);
  EXPECT_NEAR(factor(5), 2.776, 5e-4);
  EXPECT_NEAR(factor(20), 2.093, 5e-4);
}

TEST(SeedStatistics, OneSeedHasNoSpread) {
  constexpr std::array kValues = {0.25};
  const SeedStatistics s = statistics_of(kValues);
  EXPECT_EQ(s.n, 1);
  EXPECT_EQ(s.mean, 0.25);
  EXPECT_FALSE(s.sd || s.sem || s.t95);
  EXPECT_TRUE(s.to_json().at("t95").is_null());
  EXPECT_EQ(format_mean_sd(s), "0.2500");
}

TEST(SeedStatistics, EqualValuesHaveASpreadOfZero) {
  constexpr std::array kValues = {0.1, 0.1, 0.1, 0.1};
  const SeedStatistics s = statistics_of(kValues);
  EXPECT_EQ(s.sd, 0.0);
  EXPECT_EQ(s.t95, 0.0);
  EXPECT_EQ(format_mean_sd(s), "0.1000 ± 0.0000");
}

TEST(SeedStatistics, RefusesNothingAndWhatIsNoNumber) {
  EXPECT_THROW(statistics_of({}), Error);
  constexpr std::array kNan = {0.1, std::numeric_limits<double>::quiet_NaN()};
  constexpr std::array kInfinite = {std::numeric_limits<double>::infinity()};
  EXPECT_THROW(statistics_of(kNan), Error);
  EXPECT_THROW(statistics_of(kInfinite), Error);
}

}  // namespace
}  // namespace perennial::continual
