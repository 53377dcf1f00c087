// SPDX-License-Identifier: Apache-2.0
#include "perennial/continual/drift.h"

#include <algorithm>
#include <cmath>

namespace perennial::continual {

namespace {

// The least deviation, as a share of the mean.
constexpr double kLeastDeviation = 0.05;

}  // namespace

DriftDetector::Verdict DriftDetector::observe(double loss) {
  if (!std::isfinite(loss)) return Verdict::usual;
  State& s = state_;
  if (s.observed >= options_.window) {
    const double deviation = std::max(std::sqrt(s.variance), kLeastDeviation * std::abs(s.mean));
    if (loss > s.mean + options_.threshold * deviation) {
      if (++s.suspicious < options_.steps) return Verdict::suspicious;
      restart();
      return Verdict::drift;
    }
  }
  s.suspicious = 0;
  s.observed = std::min(s.observed + 1, options_.window);
  const double weight = 1 / static_cast<double>(s.observed);
  const double difference = loss - s.mean;
  s.mean += weight * difference;
  s.variance += weight * (difference * (loss - s.mean) - s.variance);
  return Verdict::usual;
}

}  // namespace perennial::continual
