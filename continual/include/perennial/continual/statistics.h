// SPDX-License-Identifier: Apache-2.0
// Statistics of a metric over the seeds that it was measured with.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace perennial::continual {

// n values x_1 .. x_n, taken as independent draws.
struct SeedStatistics {
  std::int64_t n = 0;
  double mean = 0;
  // Of n >= 2 values, else empty.
  std::optional<double> sd;   // sqrt(sum (x - mean)^2 / (n - 1))
  std::optional<double> sem;  // sd / sqrt(n)
  // Half the width of the interval that covers the true mean in 95% of repetitions, were the values
  // normal: sem times Student's t at 0.975 with n - 1 degrees of freedom. The interval is mean +-
  // t95.
  std::optional<double> t95;

  // {"seeds", "mean", "sd", "sem", "t95"}; null where empty.
  boost::json::object to_json() const;
};

// Throws Error without values, or for one that is not finite.
SeedStatistics statistics_of(std::span<const double> values);

// "0.8432 ± 0.0021" (mean and sd, UTF-8) or "0.8432" of one value.
std::string format_mean_sd(const SeedStatistics& statistics);

}  // namespace perennial::continual
