// SPDX-License-Identifier: Apache-2.0
// The task of classes against its formulas, written out.
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "perennial/continual/task.h"

namespace perennial::continual {
namespace {

// Of sums of a few numbers near 1 in 32 bits.
constexpr double kLossRounding = 1e-5;

std::shared_ptr<const Task> letters() { return make_task(StreamOptions{}, {"a", "b", "c, d"}, {}); }

// (4, 3)
torch::Tensor class_outputs() {
  return at::tensor({0.5, -1., 2., 0., 0., 0., 3., 1., -2., -0.5, 0.25, 0.1}, at::kFloat)
      .view({4, 3});
}

double probability(const torch::Tensor& row, std::int64_t label) {
  double sum = 0;
  for (std::int64_t c = 0; c < row.size(0); ++c) sum += std::exp(row[c].item<double>());
  return std::exp(row[label].item<double>()) / sum;
}

TEST(Classification, LosesTheLogarithmOfTheProbabilityOfTheClass) {
  const auto task = letters();
  const torch::Tensor y = at::tensor({2, 0, 1, 1}, at::kLong);
  const torch::Tensor losses = task->losses(class_outputs(), y);
  double mean = 0;
  for (std::int64_t i = 0; i < 4; ++i) {
    const double loss = -std::log(probability(class_outputs()[i], y[i].item<std::int64_t>()));
    EXPECT_NEAR(losses[i].item<double>(), loss, kLossRounding);
    mean += loss / 4;
  }
  EXPECT_NEAR(task->loss(class_outputs(), y).item<double>(), mean, kLossRounding);
  EXPECT_EQ(task->outputs(), 3);
  EXPECT_NEAR(answers_of(task->kind(), class_outputs())[0][2].item<double>(),
              probability(class_outputs()[0], 2), kLossRounding);
}

TEST(Classification, DivergesByTheSoftenedProbabilities) {
  const auto task = letters();
  const torch::Tensor before = class_outputs(), now = class_outputs().flip(0);
  for (const double temperature : {1.0, 2.0}) {
    double sum = 0;
    for (std::int64_t i = 0; i < 4; ++i) {
      for (std::int64_t c = 0; c < 3; ++c) {
        const double q = probability(before[i] / temperature, c);
        sum += q * std::log(q / probability(now[i] / temperature, c)) / 4;
      }
    }
    EXPECT_NEAR(task->divergence(before, now, temperature).item<double>(), sum, kLossRounding);
  }
  EXPECT_NEAR(task->divergence(before, before).item<double>(), 0, kLossRounding);
}

// d log p_c / d output_k = [c = k] - p_k.
TEST(Classification, ItsFisherInformationIsTheExpectedSquaredScore) {
  const auto task = letters();
  torch::Tensor z = class_outputs().requires_grad_();
  torch::Tensor sum = at::zeros_like(class_outputs());
  for (const FisherTerm& term : task->fisher_terms(z)) {
    z.mutable_grad() = torch::Tensor();
    term.value.sum().backward({}, /*retain_graph=*/true);
    sum += z.grad().square() * term.weight;
  }
  for (std::int64_t i = 0; i < 4; ++i) {
    for (std::int64_t k = 0; k < 3; ++k) {
      const double p = probability(class_outputs()[i], k);
      EXPECT_NEAR(sum[i][k].item<double>(), p * (1 - p), kLossRounding);
    }
  }
}

TEST(Classification, DrawsClassesByTheirProbabilities) {
  const auto task = letters();
  for (const auto& [u, first] : {std::pair{0.1, 0}, {0.2, 1}, {0.25, 2}, {0.999, 2}}) {
    const double value = u;
    EXPECT_EQ(task->drawn(class_outputs(), [&] { return value; })[0].item<int>(), first) << u;
  }
}

TEST(Classification, ScoresTheShareOfRightAnswers) {
  const auto task = letters();
  const Batch batch{at::zeros({4, 1}), at::tensor({2, 0, 1, 1}, at::kLong),
                    at::zeros({4}, at::kLong)};
  const auto scorer = task->scorer();
  for (std::int64_t i = 0; i < 4; ++i) {
    scorer->add(class_outputs().narrow(0, i, 1), {batch.x.narrow(0, i, 1), batch.y.narrow(0, i, 1),
                                                  batch.experience.narrow(0, i, 1)});
  }
  EXPECT_EQ(scorer->score(), 0.75);  // ties are the first class's
}

TEST(Classification, AnswersWithALabelAndItsProbability) {
  const auto task = letters();
  EXPECT_EQ(task->prediction_columns(), (std::vector<std::string>{"label", "confidence"}));
  const auto lines = task->predictions(answers_of(task->kind(), class_outputs()));
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0][0].text, "c, d");
  EXPECT_EQ(lines[0][0].value, boost::json::value("c, d"));
  EXPECT_EQ(lines[1][1].text, "0.3333");
  EXPECT_NEAR(lines[1][1].value.as_double(), 1.0 / 3, kLossRounding);
}

}  // namespace
}  // namespace perennial::continual
