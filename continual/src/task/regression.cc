// SPDX-License-Identifier: Apache-2.0
// Numbers for each example.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mse_loss.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>

#include "task/tasks.h"

namespace perennial::continual {

namespace {

// R squared, 1 - sum (f - y)^2 / sum (y - mean y)^2 with the mean of the test set, averaged over
// the targets; of a target that is the same in all rows 1 where every answer is right, else 0. Sums
// run over the rows in their order.
class RSquared : public Scorer {
 public:
  // What is worse, or not finite, counts as this: means over test sets stay numbers.
  static constexpr double kWorst = -1e9;

  explicit RSquared(const Preprocessing& scale)
      : scale_(scale), sums_(static_cast<std::size_t>(scale.features)) {}

  void add(const torch::Tensor& answers, const Batch& batch) override {
    const torch::Tensor f = answers.contiguous(), y = batch.y.contiguous();
    const float *from = f.const_data_ptr<float>(), *target = y.const_data_ptr<float>();
    for (std::int64_t row = 0; row < y.size(0); ++row) {
      ++rows_;
      for (Sums& sums : sums_) {
        const double wrong = static_cast<double>(*from++) - static_cast<double>(*target);
        sums.squares += wrong * wrong;
        // Welford: the mean so far, and the squares around it.
        const double value = static_cast<double>(*target++), before = value - sums.mean;
        sums.mean += before / static_cast<double>(rows_);
        sums.spread += before * (value - sums.mean);
      }
    }
  }
  double score() const override {
    double sum = 0;
    for (const Sums& sums : sums_) {
      const double constant = sums.squares == 0 ? 1 : 0;
      sum += sums.spread > 0 ? 1 - sums.squares / sums.spread : constant;
    }
    const double mean = sum / static_cast<double>(sums_.size());
    return std::isfinite(mean) ? std::max(mean, kWorst) : kWorst;
  }
  std::vector<double> errors() const override {
    std::vector<double> all;
    for (std::size_t t = 0; t < sums_.size(); ++t) {
      const double error =
          std::sqrt(sums_[t].squares / static_cast<double>(rows_)) * scale_.deviations[t];
      all.push_back(std::isnan(error) ? std::numeric_limits<double>::infinity() : error);
    }
    return all;
  }

 private:
  struct Sums {
    double squares = 0;  // of f - y
    double mean = 0, spread = 0;
  };
  const Preprocessing& scale_;
  std::int64_t rows_ = 0;
  std::vector<Sums> sums_;
};

// The loss of a row is the negative log-likelihood, but for a constant, of a normal distribution
// whose mean the outputs are and whose variance is C / 2.
class Regression : public Task {
 public:
  explicit Regression(Preprocessing targets) : targets_(std::move(targets)) {}

  TaskKind kind() const override { return TaskKind::regression; }
  const std::vector<std::string>& names() const override { return targets_.columns; }

  torch::Tensor losses(const torch::Tensor& outputs, const torch::Tensor& targets) const override {
    return at::mse_loss(outputs, targets, at::Reduction::None).mean(1);
  }
  torch::Tensor loss(const torch::Tensor& outputs, const torch::Tensor& targets) const override {
    return at::mse_loss(outputs, targets);
  }
  torch::Tensor divergence(const torch::Tensor& before, const torch::Tensor& now,
                           double temperature) const override {
    return at::mse_loss(now / temperature, before / temperature);
  }

  // One deviation to either side: of a normal distribution's mean and variance.
  torch::Tensor drawn(const torch::Tensor& outputs,
                      const std::function<double()>& uniform) const override {
    torch::Tensor signs = at::empty_like(outputs, at::MemoryFormat::Contiguous);
    float* sign = signs.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < signs.numel(); ++i) sign[i] = uniform() < 0.5 ? -1.0F : 1.0F;
    return outputs + signs * std::sqrt(variance());
  }
  std::vector<FisherTerm> fisher_terms(const torch::Tensor& outputs) const override {
    std::vector<FisherTerm> terms;
    const torch::Tensor weight = at::full({outputs.size(0), 1}, 1 / variance());
    for (std::int64_t t = 0; t < outputs.size(1); ++t) {
      terms.push_back({outputs.select(1, t), weight});
    }
    return terms;
  }

  std::unique_ptr<Scorer> scorer() const override { return std::make_unique<RSquared>(targets_); }

  std::vector<std::string> prediction_columns() const override { return names(); }
  std::vector<std::vector<PredictionCell>> predictions(
      const torch::Tensor& answers) const override {
    const torch::Tensor values = answers.contiguous();
    const float* value = values.const_data_ptr<float>();
    std::vector<std::vector<PredictionCell>> lines(static_cast<std::size_t>(values.size(0)));
    for (std::vector<PredictionCell>& line : lines) {
      for (std::size_t t = 0; t < targets_.means.size(); ++t) {
        const double number =
            targets_.means[t] + static_cast<double>(*value++) * targets_.deviations[t];
        char text[32];
        std::snprintf(text, sizeof(text), "%.9g", number);
        line.push_back({number, text});
      }
    }
    return lines;
  }

 private:
  double variance() const { return static_cast<double>(outputs()) / 2; }

  Preprocessing targets_;
};

}  // namespace

std::shared_ptr<const Task> make_regression(Preprocessing targets) {
  return std::make_shared<Regression>(std::move(targets));
}

}  // namespace perennial::continual
