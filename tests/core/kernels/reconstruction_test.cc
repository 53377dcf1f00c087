// SPDX-License-Identifier: Apache-2.0
// Sigmoid and cross entropy against double, at the ends of their range, and row by row.
#include "perennial/kernels/reconstruction.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "inputs.h"

namespace perennial::kernels {
namespace {

// Some roundings to fp32 of values of order 1.
constexpr double kTolerance = 5e-7;

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

double cross_entropy(double logit, double target) {
  return std::max(logit, 0.0) - logit * target + std::log1p(std::exp(-std::abs(logit)));
}

// Also far from 0.
std::vector<float> logits_of(std::int64_t n) {
  std::vector<float> values = uniform(n, 7);
  for (std::size_t i = 0; i < values.size(); i += 3) values[i] *= 40;
  return values;
}

TEST(Reconstruction, SigmoidAndItsEnds) {
  std::vector<float> in = logits_of(1000);
  in.insert(in.end(),
            {0, -0.0F, 88, -88, 104, -104, 1e30F, -1e30F, std::numeric_limits<float>::infinity(),
             -std::numeric_limits<float>::infinity()});
  std::vector<float> out(in.size());
  sigmoid(static_cast<std::int64_t>(in.size()), in.data(), out.data());
  for (std::size_t i = 0; i < in.size(); ++i) {
    EXPECT_NEAR(out[i], logistic(in[i]), kTolerance) << in[i];
  }
  float nan = std::numeric_limits<float>::quiet_NaN(), found = 0;
  sigmoid(1, &nan, &found);
  EXPECT_TRUE(std::isnan(found));
}

TEST(Reconstruction, ErrorIsTheMeanCrossEntropy) {
  for (const std::int64_t width : {1, 2, 5, 7, 13, 16, 17, 784}) {
    const std::int64_t rows = 9;
    const std::vector<float> logits = logits_of(rows * width);
    std::vector<float> targets(logits.size()), error(static_cast<std::size_t>(rows));
    sigmoid(rows * width, uniform(rows * width, 8).data(), targets.data());
    reconstruction_error(0, rows, width, logits.data(), targets.data(), error.data());
    for (std::int64_t r = 0; r < rows; ++r) {
      double expected = 0;
      for (std::int64_t c = 0; c < width; ++c) {
        const auto i = static_cast<std::size_t>(r * width + c);
        expected += cross_entropy(logits[i], targets[i]) / static_cast<double>(width);
      }
      EXPECT_NEAR(error[static_cast<std::size_t>(r)], expected, kTolerance * (1 + expected))
          << width;
    }
  }
  const float logit = std::numeric_limits<float>::quiet_NaN(), target = 0.5F;
  float error = 0;
  reconstruction_error(0, 1, 1, &logit, &target, &error);
  EXPECT_TRUE(std::isnan(error));
}

TEST(Reconstruction, ARowsBitsAreItsOwn) {
  for (const std::int64_t width : {1, 5, 7, 13, 16, 31}) {
    const std::int64_t rows = 64;
    const std::vector<float> in = logits_of(rows * width);
    const auto n = in.size();
    std::vector<float> all(n), alone(n), error(n), own(n);
    sigmoid(rows * width, in.data(), all.data());
    reconstruction_error(0, rows, width, in.data(), all.data(), error.data());
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::vector<float> row(in.begin() + r * width, in.begin() + (r + 1) * width);
      sigmoid(width, row.data(), alone.data() + r * width);
      reconstruction_error(0, 1, width, row.data(), alone.data() + r * width, own.data() + r);
    }
    EXPECT_EQ(std::memcmp(all.data(), alone.data(), n * sizeof(float)), 0) << width;
    EXPECT_EQ(std::memcmp(error.data(), own.data(), rows * sizeof(float)), 0) << width;
  }
}

}  // namespace
}  // namespace perennial::kernels
