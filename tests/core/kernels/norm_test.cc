// SPDX-License-Identifier: Apache-2.0
// Norms against formulas in double; their gradients against central differences.
#include "perennial/kernels/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "inputs.h"

namespace perennial::kernels {
namespace {

using Doubles = std::vector<double>;

// fp32 inputs of size 1, sums in double, results rounded to fp32 a few times.
constexpr double kTolerance = 2e-6;
// Gradients pass through mean, rstd or rrms stored as fp32.
constexpr double kGradientTolerance = 2e-5;

Doubles wide(const std::vector<float>& values) { return {values.begin(), values.end()}; }

Doubles batch_norm(std::size_t tokens, std::size_t channels, const Doubles& x, const Doubles& gamma,
                   const Doubles& beta, double eps) {
  Doubles y(x.size());
  for (std::size_t c = 0; c < channels; ++c) {
    double mean = 0, variance = 0;
    for (std::size_t t = 0; t < tokens; ++t) mean += x[t * channels + c] / tokens;
    for (std::size_t t = 0; t < tokens; ++t) {
      variance += std::pow(x[t * channels + c] - mean, 2) / tokens;
    }
    for (std::size_t t = 0; t < tokens; ++t) {
      y[t * channels + c] =
          gamma[c] * (x[t * channels + c] - mean) / std::sqrt(variance + eps) + beta[c];
    }
  }
  return y;
}

Doubles rms_norm(std::size_t rows, std::size_t heads, std::size_t dim, const Doubles& x,
                 const Doubles& gamma, double eps) {
  Doubles y(x.size());
  for (std::size_t r = 0; r < rows * heads; ++r) {
    double squares = 0;
    for (std::size_t i = 0; i < dim; ++i) squares += x[r * dim + i] * x[r * dim + i] / dim;
    for (std::size_t i = 0; i < dim; ++i) {
      y[r * dim + i] = gamma[r % heads * dim + i] * x[r * dim + i] / std::sqrt(squares + eps);
    }
  }
  return y;
}

Doubles layer_norm(std::size_t rows, std::size_t heads, std::size_t dim, const Doubles& x,
                   const Doubles& gamma, const Doubles& beta, double eps) {
  Doubles y(x.size());
  for (std::size_t r = 0; r < rows * heads; ++r) {
    double mean = 0, variance = 0;
    for (std::size_t i = 0; i < dim; ++i) mean += x[r * dim + i] / dim;
    for (std::size_t i = 0; i < dim; ++i) variance += std::pow(x[r * dim + i] - mean, 2) / dim;
    for (std::size_t i = 0; i < dim; ++i) {
      const std::size_t channel = r % heads * dim + i;
      y[r * dim + i] =
          gamma[channel] * (x[r * dim + i] - mean) / std::sqrt(variance + eps) + beta[channel];
    }
  }
  return y;
}

// d (sum of dy f(x)) / dx by central differences.
Doubles differences(const std::function<Doubles(const Doubles&)>& f, Doubles x,
                    const std::vector<float>& dy) {
  constexpr double kStep = 1e-5;
  Doubles out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double before = x[i];
    double sum = 0;
    for (const double sign : {1.0, -1.0}) {
      x[i] = before + sign * kStep;
      const Doubles y = f(x);
      for (std::size_t j = 0; j < y.size(); ++j) sum += sign * dy[j] * y[j];
    }
    x[i] = before;
    out[i] = sum / (2 * kStep);
  }
  return out;
}

void expect_close(const std::vector<float>& actual, const Doubles& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance * (1 + std::abs(expected[i]))) << "at " << i;
  }
}

TEST(BatchNorm, ValuesAndGradients) {
  for (const auto& [tokens, channels] :
       {std::pair<std::size_t, std::size_t>{2, 1}, {7, 5}, {9, 18}}) {
    const auto n = static_cast<std::int64_t>(tokens * channels);
    const auto b = static_cast<std::int64_t>(tokens), c = static_cast<std::int64_t>(channels);
    const auto x = uniform(n, 1), gamma = uniform(c, 2), beta = uniform(c, 3), dy = uniform(n, 4);
    const float eps = 0.01f;
    std::vector<float> y(x.size()), mean(channels), rstd(channels), dx(x.size()), dgamma(channels),
        dbeta(channels);
    const std::int64_t middle = c / 2;  // channels split between threads
    for (const auto& [from, to] : {std::pair{std::int64_t{0}, middle}, {middle, c}}) {
      batch_norm_forward(b, c, from, to, x.data(), gamma.data(), beta.data(), eps, y.data(),
                         mean.data(), rstd.data());
      batch_norm_backward(b, c, from, to, x.data(), gamma.data(), mean.data(), rstd.data(),
                          dy.data(), dx.data(), dgamma.data(), dbeta.data());
    }
    const Doubles x2 = wide(x), gamma2 = wide(gamma), beta2 = wide(beta);
    expect_close(y, batch_norm(tokens, channels, x2, gamma2, beta2, eps), kTolerance * 10);
    expect_close(
        dx,
        differences(
            [&](const Doubles& v) { return batch_norm(tokens, channels, v, gamma2, beta2, eps); },
            x2, dy),
        kGradientTolerance);
    expect_close(
        dgamma,
        differences(
            [&](const Doubles& v) { return batch_norm(tokens, channels, x2, v, beta2, eps); },
            gamma2, dy),
        kGradientTolerance);
    expect_close(
        dbeta,
        differences(
            [&](const Doubles& v) { return batch_norm(tokens, channels, x2, gamma2, v, eps); },
            beta2, dy),
        kGradientTolerance);
  }
}

// The two-pass variance does not cancel when the mean is far from zero.
TEST(BatchNorm, SurvivesALargeMean) {
  const std::int64_t tokens = 1000;
  auto x = dyadic(tokens, 1);
  for (float& value : x) value += 10000;
  const std::vector<float> gamma{1}, beta{0};
  std::vector<float> y(x.size()), mean(1), rstd(1);
  batch_norm_forward(tokens, 1, 0, 1, x.data(), gamma.data(), beta.data(), 1e-5f, y.data(),
                     mean.data(), rstd.data());
  double squares = 0;
  for (const double value : y) squares += value * value;
  EXPECT_NEAR(squares / static_cast<double>(tokens), 1, 1e-3);
}

TEST(Affine, IsOneFusedMultiplyAdd) {
  for (const std::int64_t channels : {1, 15, 16, 17, 50}) {
    const std::int64_t tokens = 5;
    const auto x = uniform(tokens * channels, 1), scale = uniform(channels, 2),
               shift = uniform(channels, 3);
    std::vector<float> y(x.size(), 7.0f), expected = y;
    affine_forward(1, 4, channels, x.data(), scale.data(), shift.data(), y.data());
    for (std::int64_t i = channels; i < 4 * channels; ++i) {
      const auto at = static_cast<std::size_t>(i), c = static_cast<std::size_t>(i % channels);
      expected[at] = std::fma(x[at], scale[c], shift[c]);
    }
    expect_same_bits(y, expected);
  }
}

TEST(RmsNorm, ValuesAndGradients) {
  struct Shape {
    std::int64_t tokens, heads, dim;
  };
  for (const auto& [tokens, heads, dim] : {Shape{1, 1, 1}, {3, 2, 5}, {2, 3, 17}}) {
    const std::int64_t n = tokens * heads * dim;
    const auto x = uniform(n, 1), gamma = uniform(heads * dim, 2), dy = uniform(n, 4);
    const float eps = 0.01f;
    std::vector<float> y(x.size()), rrms(static_cast<std::size_t>(tokens * heads)), dx(x.size()),
        dgamma(gamma.size());
    for (std::int64_t t = 0; t < tokens; ++t) {
      rms_norm_forward(t, t + 1, heads, dim, x.data(), gamma.data(), eps, y.data(), rrms.data());
      rms_norm_backward(t, t + 1, heads, dim, x.data(), gamma.data(), rrms.data(), dy.data(),
                        dx.data());
    }
    const std::int64_t middle = heads * dim / 2;
    rms_norm_backward_gamma(tokens, heads, dim, 0, middle, x.data(), rrms.data(), dy.data(),
                            dgamma.data());
    rms_norm_backward_gamma(tokens, heads, dim, middle, heads * dim, x.data(), rrms.data(),
                            dy.data(), dgamma.data());
    const Doubles x2 = wide(x), gamma2 = wide(gamma);
    const auto rows = static_cast<std::size_t>(tokens), h = static_cast<std::size_t>(heads),
               d = static_cast<std::size_t>(dim);
    expect_close(y, rms_norm(rows, h, d, x2, gamma2, eps), kTolerance);
    expect_close(
        dx,
        differences([&](const Doubles& v) { return rms_norm(rows, h, d, v, gamma2, eps); }, x2, dy),
        kGradientTolerance);
    expect_close(
        dgamma,
        differences([&](const Doubles& v) { return rms_norm(rows, h, d, x2, v, eps); }, gamma2, dy),
        kGradientTolerance);
  }
}

TEST(LayerNorm, ValuesAndGradients) {
  struct Shape {
    std::int64_t tokens, heads, dim;
  };
  for (const auto& [tokens, heads, dim] : {Shape{0, 1, 2}, {1, 1, 2}, {3, 2, 5}, {2, 3, 17}}) {
    const std::int64_t n = tokens * heads * dim, middle = heads * dim / 2;
    const auto x = uniform(n, 1), gamma = uniform(heads * dim, 2), beta = uniform(heads * dim, 3),
               dy = uniform(n, 4);
    const float eps = 0.01f;
    std::vector<float> y(x.size()), mean(static_cast<std::size_t>(tokens * heads)),
        rstd(mean.size()), dx(x.size()), dgamma(gamma.size()), dbeta(gamma.size());
    for (std::int64_t t = 0; t < tokens; ++t) {
      layer_norm_forward(t, t + 1, heads, dim, x.data(), gamma.data(), beta.data(), eps, y.data(),
                         mean.data(), rstd.data());
      layer_norm_backward(t, t + 1, heads, dim, x.data(), gamma.data(), mean.data(), rstd.data(),
                          dy.data(), dx.data());
    }
    for (const auto& [from, to] : {std::pair{std::int64_t{0}, middle}, {middle, heads * dim}}) {
      layer_norm_backward_affine(tokens, heads, dim, from, to, x.data(), mean.data(), rstd.data(),
                                 dy.data(), dgamma.data(), dbeta.data());
    }
    const auto expected = [&](const Doubles& x2, const Doubles& gamma2, const Doubles& beta2) {
      return layer_norm(static_cast<std::size_t>(tokens), static_cast<std::size_t>(heads),
                        static_cast<std::size_t>(dim), x2, gamma2, beta2, eps);
    };
    const Doubles x2 = wide(x), gamma2 = wide(gamma), beta2 = wide(beta);
    expect_close(y, expected(x2, gamma2, beta2), kTolerance);
    expect_close(dx,
                 differences([&](const Doubles& v) { return expected(v, gamma2, beta2); }, x2, dy),
                 kGradientTolerance);
    expect_close(dgamma,
                 differences([&](const Doubles& v) { return expected(x2, v, beta2); }, gamma2, dy),
                 kGradientTolerance);
    expect_close(dbeta,
                 differences([&](const Doubles& v) { return expected(x2, gamma2, v); }, beta2, dy),
                 kGradientTolerance);
  }
}

}  // namespace
}  // namespace perennial::kernels
