// SPDX-License-Identifier: Apache-2.0
// Mean, spread and confidence of few values.
#include "perennial/continual/statistics.h"

#include <boost/json/value.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <cstdio>

#include "perennial/core/error.h"

namespace perennial::continual {

namespace json = boost::json;

json::object SeedStatistics::to_json() const {
  const auto or_null = [](const std::optional<double>& value) {
    return value ? json::value(*value) : json::value(nullptr);
  };
  return {{"seeds", n},
          {"mean", mean},
          {"sd", or_null(sd)},
          {"sem", or_null(sem)},
          {"t95", or_null(t95)}};
}

SeedStatistics statistics_of(std::span<const double> values) {
  if (values.empty()) throw Error("statistics of no values");
  SeedStatistics result;
  result.n = std::ssize(values);
  const auto n = static_cast<double>(values.size());
  for (const double value : values) {
    if (!std::isfinite(value)) {
      throw Error("statistics of a value that is " + std::to_string(value));
    }
    result.mean += value;
  }
  result.mean /= n;
  if (values.size() < 2) return result;
  double squares = 0;
  for (const double value : values) squares += (value - result.mean) * (value - result.mean);
  result.sd = std::sqrt(squares / (n - 1));
  result.sem = *result.sd / std::sqrt(n);
  result.t95 = *result.sem * boost::math::quantile(boost::math::students_t(n - 1), 0.975);
  return result;
}

std::string format_mean_sd(const SeedStatistics& statistics) {
  char text[64];
  if (statistics.sd) {
    std::snprintf(text, sizeof(text), "%.4f ± %.4f", statistics.mean, *statistics.sd);
  } else {
    std::snprintf(text, sizeof(text), "%.4f", statistics.mean);
  }
  return text;
}

}  // namespace perennial::continual
