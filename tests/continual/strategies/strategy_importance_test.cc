// SPDX-License-Identifier: Apache-2.0
// Importances against slow references in double, one example at a time, and the penalties made of
// them.
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/linear.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "continual/strategies/strategy_driver.h"
#include "strategies/importance.h"

namespace perennial::continual {
namespace {

// Rounding of float32 sums against double.
constexpr double kRelative = 1e-4, kAbsolute = 1e-7;

void expect_near(const torch::Tensor& actual, const torch::Tensor& expected) {
  EXPECT_GT(expected.abs().max().item<double>(), 0);
  EXPECT_TRUE(
      torch::allclose(actual.to(at::kDouble), expected.to(at::kDouble), kRelative, kAbsolute))
      << ::testing::Message() << (actual.to(at::kDouble) - expected).abs().max().item<double>();
}

// The MLP in double: parameters as the model has them, forward as it should be.
struct DoubleMlp {
  explicit DoubleMlp(Model& model) {
    for (const torch::Tensor& parameter : parameters_of(model)) {
      parameters.push_back(parameter.detach().to(at::kDouble).requires_grad_(true));
    }
  }
  torch::Tensor operator()(const torch::Tensor& x) const {
    torch::Tensor h = x.to(at::kDouble);
    for (std::size_t i = 0; i < parameters.size(); i += 2) {
      h = at::linear(i == 0 ? h : h.relu(), parameters[i], parameters[i + 1]);
    }
    return h;
  }
  torch::Tensor gradient(const torch::Tensor& loss) const {
    std::vector<torch::Tensor> parts = torch::autograd::grad({loss}, parameters, {}, true);
    for (torch::Tensor& part : parts) part = part.reshape({-1});
    return torch::cat(parts);
  }
  std::vector<torch::Tensor> parameters;
};

// All training examples of an experience, one batch.
Batch everything(const Driver& driver, std::int64_t experience) {
  const std::int64_t size = driver.stream.train_size(experience);
  return driver.stream.train_batch(experience, 0, 0, size, 0);
}

TEST(Importance, ExactFisherIsTheExpectationOverClassesOfEachExample) {
  Driver driver(mlp_config("ewc"));
  const DoubleMlp reference(*driver.model);
  const Batch all = everything(driver, 1);
  torch::Tensor expected = torch::zeros({driver.values().numel()}, at::kDouble);
  for (std::int64_t n = 0; n < all.y.size(0); ++n) {
    const torch::Tensor log_p = reference(all.x.narrow(0, n, 1)).log_softmax(1);
    for (std::int64_t c = 0; c < kClasses; ++c) {
      const torch::Tensor g = reference.gradient(log_p[0][c]);
      expected += log_p[0][c].detach().exp() * g * g / all.y.size(0);
    }
  }
  StateRandom random(1, LaneUse::fisher_sample);
  ParameterVector fisher =
      fisher_information(*driver.model, driver.stream, 1, {FisherKind::exact, 0, 0}, random);
  expect_near(fisher.flat(), expected);
}

RunConfig task_config(const char* kind) {
  return mlp_config(kind, [](RunConfig& c) { c.stream.scenario = Scenario::task_incremental; });
}

// The output weights and biases of classes 0 and 1, in a vector of importances.
torch::Tensor of_the_other_task(Driver& driver, const torch::Tensor& flat) {
  const std::vector<torch::Tensor> parameters = driver.parameters();
  const std::int64_t bias = parameters.back().numel(),
                     weight = parameters[parameters.size() - 2].numel();
  return torch::cat({flat.narrow(0, flat.numel() - bias, 2),
                     flat.narrow(0, flat.numel() - bias - weight, weight / 2)});
}

// Where the task is known, the model is one of the task's two classes: 2 and 3 of experience 1.
TEST(Importance, OfATaskIsThatOfItsOwnOutputs) {
  Driver driver(task_config("ewc"));
  const DoubleMlp reference(*driver.model);
  const Batch all = everything(driver, 1);
  const auto sum_of = [&](const std::function<torch::Tensor(std::int64_t)>& of_example) {
    torch::Tensor sum = torch::zeros({driver.values().numel()}, at::kDouble);
    for (std::int64_t n = 0; n < all.y.size(0); ++n) sum += of_example(n) / all.y.size(0);
    return sum;
  };
  const auto own = [&](std::int64_t n) { return reference(all.x.narrow(0, n, 1)).narrow(1, 2, 2); };
  const torch::Tensor exact = sum_of([&](std::int64_t n) {
    const torch::Tensor log_p = own(n).log_softmax(1);
    torch::Tensor sum = torch::zeros({driver.values().numel()}, at::kDouble);
    for (std::int64_t c = 0; c < 2; ++c) {
      const torch::Tensor g = reference.gradient(log_p[0][c]);
      sum += log_p[0][c].detach().exp() * g * g;
    }
    return sum;
  });
  const torch::Tensor empirical = sum_of([&](std::int64_t n) {
    const torch::Tensor g =
        reference.gradient(at::cross_entropy_loss(own(n), all.y.narrow(0, n, 1) - 2));
    return g * g;
  });
  const torch::Tensor sensitivity = sum_of([&](std::int64_t n) {
    const torch::Tensor logits = own(n);
    return reference.gradient((logits * logits).sum()).abs();
  });
  StateRandom random(1, LaneUse::fisher_sample);
  const auto fisher = [&](FisherKind kind, std::int64_t batch) {
    return fisher_information(*driver.model, driver.stream, 1, {kind, 0, batch}, random).flat();
  };
  expect_near(fisher(FisherKind::exact, 0), exact);
  expect_near(fisher(FisherKind::empirical, 0), empirical);
  // A batch of one is an example's own gradient.
  expect_near(fisher(FisherKind::batched, 1), empirical);
  const torch::Tensor mas = output_sensitivity(*driver.model, driver.stream, 1, 0).flat();
  expect_near(mas, sensitivity);
  for (const torch::Tensor& importance :
       {fisher(FisherKind::exact, 0), fisher(FisherKind::sample, 0),
        fisher(FisherKind::batched, 20), mas}) {
    EXPECT_TRUE(importance.isfinite().all().item<bool>());
    EXPECT_TRUE(of_the_other_task(driver, importance).eq(0).all().item<bool>());
    EXPECT_GT(importance.max().item<double>(), 0);
  }
}

TEST(Importance, EmpiricalFisherTakesTrueLabelsAndALimitTakesSomeExamples) {
  Driver driver(mlp_config("ewc"));
  const DoubleMlp reference(*driver.model);
  const Batch all = everything(driver, 0);
  torch::Tensor expected = torch::zeros({driver.values().numel()}, at::kDouble);
  for (std::int64_t n = 0; n < 17; ++n) {
    const torch::Tensor g = reference.gradient(
        at::cross_entropy_loss(reference(all.x.narrow(0, n, 1)), all.y.narrow(0, n, 1)));
    expected += g * g / 17;
  }
  StateRandom random(1, LaneUse::fisher_sample);
  ParameterVector fisher =
      fisher_information(*driver.model, driver.stream, 0, {FisherKind::empirical, 17, 0}, random);
  expect_near(fisher.flat(), expected);
}

TEST(Importance, BatchedFisherSquaresTheMeansOfMinibatches) {
  Driver driver(mlp_config("ewc"));
  const DoubleMlp reference(*driver.model);
  const Batch all = everything(driver, 0);
  torch::Tensor expected = torch::zeros({driver.values().numel()}, at::kDouble);
  for (std::int64_t begin = 0; begin < 50; begin += 20) {
    const std::int64_t count = std::min<std::int64_t>(20, 50 - begin);
    const torch::Tensor g = reference.gradient(at::cross_entropy_loss(
        reference(all.x.narrow(0, begin, count)), all.y.narrow(0, begin, count)));
    expected += g * g / 3;
  }
  StateRandom random(1, LaneUse::fisher_sample);
  ParameterVector fisher =
      fisher_information(*driver.model, driver.stream, 0, {FisherKind::batched, 0, 20}, random);
  expect_near(fisher.flat(), expected);
}

TEST(Importance, SampledFisherHasTheExactOneAsItsMean) {
  Driver driver(mlp_config("ewc"));
  StateRandom random(1, LaneUse::fisher_sample);
  const auto total = [&](FisherKind kind) {
    return fisher_information(*driver.model, driver.stream, 0, {kind, 0, 0}, random)
        .flat()
        .sum()
        .item<double>();
  };
  const double exact = total(FisherKind::exact);
  double mean = 0;
  for (int i = 0; i < 200; ++i) mean += total(FisherKind::sample) / 200;
  EXPECT_NEAR(mean / exact, 1, 0.02);
  EXPECT_NE(total(FisherKind::sample), total(FisherKind::sample));
}

TEST(Importance, MasIsTheMeanOfAbsoluteSensitivities) {
  Driver driver(mlp_config("mas"));
  const DoubleMlp reference(*driver.model);
  const Batch all = everything(driver, 0);
  torch::Tensor expected = torch::zeros({driver.values().numel()}, at::kDouble);
  for (std::int64_t n = 0; n < all.y.size(0); ++n) {
    const torch::Tensor logits = reference(all.x.narrow(0, n, 1));
    expected += reference.gradient((logits * logits).sum()).abs() / all.y.size(0);
  }
  ParameterVector sensitivity = output_sensitivity(*driver.model, driver.stream, 0, 0);
  expect_near(sensitivity.flat(), expected);
}

// The gradient that the penalty adds at parameters theta.
torch::Tensor penalty_gradient(Driver& driver, const torch::Tensor& theta) {
  driver.set_values(theta);
  driver.zero_gradients();
  StrategyContext context = driver.context(1);
  TrainingBatch none;
  driver.strategy->after_backward(context, none);
  return driver.gradients();
}

torch::Tensor moved(const torch::Tensor& theta, std::int64_t seed) {
  torch::Tensor shift = torch::empty_like(theta);
  kernels::fill_normal(static_cast<std::uint64_t>(seed), 0, 0, 0, 0.1F,
                       {shift.mutable_data_ptr<float>(), static_cast<std::size_t>(shift.numel())});
  return theta + shift;
}

TEST(Penalty, EwcSumsOverExperiencesInConstantMemory) {
  Driver driver(mlp_config("ewc", [](RunConfig& c) {
    c.train.strategy_options.set("ewc_strength", 3);
    c.train.strategy_options.set("fisher", "exact");
  }));
  std::vector<torch::Tensor> centres, fishers;
  StateRandom random(1, LaneUse::fisher_sample);
  for (std::int64_t e = 0; e < 2; ++e) {
    driver.set_values(moved(driver.values(), e + 1));
    centres.push_back(driver.values().to(at::kDouble));
    fishers.push_back(
        fisher_information(*driver.model, driver.stream, e, {FisherKind::exact, 0, 0}, random)
            .flat()
            .to(at::kDouble));
    StrategyContext context = driver.context(e);
    driver.strategy->after_experience(context);
  }
  const torch::Tensor theta = moved(driver.values(), 7);
  const torch::Tensor at = theta.to(at::kDouble);
  const torch::Tensor expected =
      3 * (fishers[0] * (at - centres[0]) + fishers[1] * (at - centres[1]));
  expect_near(penalty_gradient(driver, theta), expected);
  EXPECT_EQ(StateMap(*driver.strategy).tensors.size(), 2U);
}

TEST(Penalty, OnlineEwcDecaysOlderInformation) {
  Driver driver(mlp_config("online_ewc", [](RunConfig& c) {
    c.train.strategy_options.set("online_ewc_strength", 3);
    c.train.strategy_options.set("ewc_gamma", 0.25);
    c.train.strategy_options.set("fisher", "empirical");
  }));
  torch::Tensor fisher = torch::zeros({driver.values().numel()}, at::kDouble);
  StateRandom random(1, LaneUse::fisher_sample);
  for (std::int64_t e = 0; e < 2; ++e) {
    driver.set_values(moved(driver.values(), e + 1));
    fisher = 0.25 * fisher + fisher_information(*driver.model, driver.stream, e,
                                                {FisherKind::empirical, 0, 0}, random)
                                 .flat()
                                 .to(at::kDouble);
    StrategyContext context = driver.context(e);
    driver.strategy->after_experience(context);
  }
  const torch::Tensor centre = driver.values().to(at::kDouble), theta = moved(driver.values(), 7);
  expect_near(penalty_gradient(driver, theta), 3 * fisher * (theta.to(at::kDouble) - centre));
}

TEST(Penalty, L2PullsToTheNewestParameters) {
  Driver driver(
      mlp_config("l2", [](RunConfig& c) { c.train.strategy_options.set("l2_strength", 0.25); }));
  for (std::int64_t e = 0; e < 2; ++e) {
    driver.set_values(moved(driver.values(), e + 1));
    StrategyContext context = driver.context(e);
    driver.strategy->after_experience(context);
  }
  const torch::Tensor centre = driver.values().to(at::kDouble), theta = moved(driver.values(), 7);
  expect_near(penalty_gradient(driver, theta), 0.5 * (theta.to(at::kDouble) - centre));
}

TEST(Penalty, MasSumsSensitivities) {
  Driver driver(
      mlp_config("mas", [](RunConfig& c) { c.train.strategy_options.set("mas_strength", 0.25); }));
  torch::Tensor omega = torch::zeros({driver.values().numel()}, at::kDouble);
  for (std::int64_t e = 0; e < 2; ++e) {
    driver.set_values(moved(driver.values(), e + 1));
    omega += output_sensitivity(*driver.model, driver.stream, e, 0).flat();
    StrategyContext context = driver.context(e);
    driver.strategy->after_experience(context);
  }
  const torch::Tensor centre = driver.values().to(at::kDouble), theta = moved(driver.values(), 7);
  expect_near(penalty_gradient(driver, theta), 0.5 * omega * (theta.to(at::kDouble) - centre));
}

TEST(Penalty, SiFollowsTheGradientAlongThePath) {
  Driver driver(mlp_config("si", [](RunConfig& c) {
    c.train.strategy_options.set("si_strength", 0.5);
    c.train.strategy_options.set("si_damping", 0.01);
  }));
  torch::Tensor omega = torch::zeros({driver.values().numel()}, at::kDouble);
  for (std::int64_t e = 0; e < 2; ++e) {
    const torch::Tensor start = driver.values().to(at::kDouble);
    torch::Tensor path = torch::zeros_like(omega);
    StrategyContext context = driver.context(e);
    driver.strategy->before_experience(context);
    for (std::int64_t step = 0; step < 3; ++step) {
      const torch::Tensor before = driver.values().to(at::kDouble);
      const torch::Tensor gradient = driver.step(e, step).to(at::kDouble);
      path -= gradient * (driver.values().to(at::kDouble) - before);
    }
    driver.strategy->after_experience(context);
    const torch::Tensor delta = driver.values().to(at::kDouble) - start;
    omega += path.clamp_min(0) / (delta * delta + 0.01);
    expect_near(StateMap(*driver.strategy).tensors["si/importance"], omega);
  }
  const torch::Tensor centre = driver.values().to(at::kDouble), theta = moved(driver.values(), 7);
  expect_near(penalty_gradient(driver, theta), omega * (theta.to(at::kDouble) - centre));
}

TEST(Penalty, LwfDistilsTheModelBeforeTheExperienceOverItsClasses) {
  Driver driver(mlp_config("lwf", [](RunConfig& c) {
    c.train.strategy_options.set("lwf_strength", 1.5);
    c.train.strategy_options.set("lwf_temperature", 2);
  }));
  StrategyContext first = driver.context(0), second = driver.context(1);
  driver.strategy->before_experience(first);
  driver.step(0, 0);
  driver.strategy->after_experience(first);
  const DoubleMlp teacher(*driver.model);
  driver.strategy->before_experience(second);
  driver.set_values(moved(driver.values(), 3));
  const torch::Tensor theta = driver.values();

  const Batch batch = driver.stream.train_batch(1, 0, 0, 16, 1);
  TrainingBatch rows{batch.x, batch.y, 16};
  driver.strategy->before_step(second, rows);
  rows.outputs = driver.model->train_forward(rows.x);
  const torch::Tensor loss = driver.strategy->extra_loss(second, rows);
  EXPECT_TRUE(torch::equal(driver.values(), theta));

  const DoubleMlp student(*driver.model);
  const auto log_softmax = [&](const DoubleMlp& mlp) {
    return (mlp(batch.x).narrow(1, 0, 2) / 2).log_softmax(1);  // classes 0 and 1 came before
  };
  const torch::Tensor q = log_softmax(teacher);
  const torch::Tensor expected = 1.5 * 4 * (q.exp() * (q - log_softmax(student))).sum(1).mean();
  EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-6);
  EXPECT_GT(expected.item<double>(), 1e-4);
  driver.zero_gradients();
  loss.backward();
  expect_near(driver.gradients(), student.gradient(expected));
}

TEST(Penalty, LwfDistilsEachEarlierTaskOverItsOwnOutputs) {
  Driver driver(mlp_config("lwf", [](RunConfig& c) {
    c.stream.stream = StreamKind::permuted;
    c.stream.experiences = 3;
    c.stream.scenario = Scenario::task_incremental;
    c.train.strategy_options.set("lwf_strength", 1.5);
  }));
  for (std::int64_t e = 0; e < 2; ++e) {
    StrategyContext context = driver.context(e);
    driver.strategy->before_experience(context);
    driver.step(e, 0);
    driver.strategy->after_experience(context);
  }
  const DoubleMlp teacher(*driver.model);
  StrategyContext third = driver.context(2);
  driver.strategy->before_experience(third);
  driver.set_values(moved(driver.values(), 3));
  const Batch batch = driver.stream.train_batch(2, 0, 0, 16, 1);
  TrainingBatch rows{batch.x, batch.y, 16};
  driver.strategy->before_step(third, rows);
  rows.outputs = driver.model->train_forward(rows.x);
  const torch::Tensor loss = driver.strategy->extra_loss(third, rows);
  const DoubleMlp student(*driver.model);
  torch::Tensor expected = torch::zeros({}, at::kDouble);
  for (std::int64_t e = 0; e < 2; ++e) {
    const auto log_softmax = [&](const DoubleMlp& mlp) {
      return (mlp(batch.x).narrow(1, e * kClasses, kClasses) / 2).log_softmax(1);
    };
    const torch::Tensor q = log_softmax(teacher);
    expected = expected + 1.5 * 4 * (q.exp() * (q - log_softmax(student))).sum(1).mean();
  }
  EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-5);
  EXPECT_GT(expected.item<double>(), 1e-4);
}

}  // namespace
}  // namespace perennial::continual
