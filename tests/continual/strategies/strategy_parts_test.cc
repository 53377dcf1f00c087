// SPDX-License-Identifier: Apache-2.0
// Strategies that give each experience a part of the network, and dropout: what the parts are, and
// that they never change.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "continual/strategies/strategy_driver.h"
#include "perennial/kernels/experts.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

RunConfig parts_config(const char* kind, const std::function<void(RunConfig&)>& change = {}) {
  return mlp_config("naive", [&](RunConfig& config) {
    config.stream.stream = StreamKind::permuted;
    config.stream.experiences = 3;
    config.train.strategy = kind;
    config.train.gate = GateChoice::oracle;
    config.model.hidden = 20;
    if (change) change(config);
  });
}

// What the run would answer for test rows of experience `from`, told that they are of `told`.
torch::Tensor answers(Driver& driver, std::int64_t from, std::uint32_t told) {
  const Batch test = driver.stream.test_batch(from, 0, 40);
  if (const auto answer = driver.strategy->predict(*driver.model, test.x, told)) {
    return answer->answers;
  }
  return driver.model->predict(test.x, told).answers;
}

void learn(Driver& driver, std::int64_t experience) {
  StrategyContext context = driver.context(experience);
  driver.strategy->before_experience(context);
  for (std::int64_t step = 0; step < 6; ++step) driver.step(experience, step);
  driver.strategy->after_experience(context);
}

class PartsTest : public ::testing::TestWithParam<const char*> {};

TEST_P(PartsTest, AnswersForAnExperienceThatEndedNeverChange) {
  Driver driver(parts_config(GetParam()));
  std::vector<torch::Tensor> then;
  for (std::int64_t e = 0; e < 3; ++e) {
    learn(driver, e);
    for (std::uint32_t old = 0; std::cmp_less(old, e); ++old) {
      EXPECT_TRUE(torch::equal(answers(driver, old, old), then[old])) << ::testing::Message() << e;
    }
    then.push_back(answers(driver, e, static_cast<std::uint32_t>(e)));
    if (e > 0) {
      EXPECT_FALSE(torch::equal(answers(driver, 0, static_cast<std::uint32_t>(e)), then[0]));
    }
  }
}

TEST_P(PartsTest, ARunForgetsNothing) {
  const RunConfig config = parts_config(GetParam(), [](RunConfig& c) {
    c.train.epochs = 3;
    c.train.lr = 0.03;
  });
  const RunResult result = run(config, nullptr);
  for (std::int64_t j = 0; j < 3; ++j) {
    EXPECT_GT(result.matrix.at(j + 1, j), 0.7);
    for (std::int64_t i = j + 1; i <= 3; ++i) {
      EXPECT_EQ(result.matrix.at(i, j), result.matrix.at(j + 1, j));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Strategies, PartsTest, ::testing::Values("packnet", "progressive"),
                         [](const auto& info) { return std::string(info.param); });

TEST(PackNet, KeepsTheLargestOfEachLayerAndFreesTheRest) {
  Driver driver(parts_config("packnet"));
  StrategyContext first = driver.context(0);
  driver.strategy->before_experience(first);
  for (std::int64_t step = 0; step < 6; ++step) driver.step(0, step);
  std::vector<torch::Tensor> trained;
  for (const torch::Tensor& parameter : driver.parameters()) {
    trained.push_back(parameter.detach().clone());
  }
  driver.strategy->after_experience(first);
  const torch::Tensor owners = StateMap(*driver.strategy).tensors.at("packnet/owners").clone();
  const torch::Tensor values = StateMap(*driver.strategy).tensors.at("packnet/values").clone();
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < 4; ++i) {  // two hidden layers
    const std::int64_t n = trained[i].numel();
    const torch::Tensor own = owners.narrow(0, begin, n);
    if (i % 2 == 1) {
      EXPECT_TRUE(own.eq(1).all().item<bool>());
    } else {
      const std::int64_t kept = n - n * 3 / 4;
      EXPECT_EQ(own.sum().item<std::int64_t>(), kept);
      const torch::Tensor size = trained[i].view({-1}).abs();
      const torch::Tensor inside = size.masked_select(own.eq(1));
      EXPECT_GE(inside.min().item<float>(), size.masked_select(own.eq(0)).max().item<float>());
      EXPECT_TRUE(values.narrow(0, begin, n).masked_select(own.eq(0)).eq(0).all().item<bool>());
      // Retrained.
      EXPECT_FALSE(torch::equal(values.narrow(0, begin, n).masked_select(own.eq(1)).abs(), inside));
    }
    begin += n;
  }
  EXPECT_EQ(begin, owners.numel());

  learn(driver, 1);
  const torch::Tensor later = StateMap(*driver.strategy).tensors.at("packnet/owners");
  const torch::Tensor now = StateMap(*driver.strategy).tensors.at("packnet/values");
  EXPECT_TRUE(later.masked_select(owners.eq(1)).eq(1).all().item<bool>());
  EXPECT_TRUE(torch::equal(now.masked_select(owners.eq(1)), values.masked_select(owners.eq(1))));
  const torch::Tensor second = later.eq(2);
  // 12 x 20 and 20 x 20 weights: a quarter of the three quarters that were free.
  EXPECT_EQ(second.sum().item<std::int64_t>(), (180 - 135) + (300 - 225));
  EXPECT_TRUE(now.masked_select(later.eq(0)).eq(0).all().item<bool>());
  EXPECT_TRUE(now.masked_select(second).ne(0).all().item<bool>());
  EXPECT_EQ(StateMap(*driver.strategy).tensors.at("packnet/heads").size(0), 2);
}

TEST(PackNet, KeepsFixedWeightsAgainstTheOptimizersMomentum) {
  // Adam moves what has no gradient any more by what it remembers of earlier ones.
  const RunConfig config = parts_config("packnet", [](RunConfig& c) {
    c.train.optimizer = OptimizerKind::adam;
    c.train.strategy_options.set("packnet_prune", 0.5);
    c.train.epochs = 2;
  });
  const RunResult result = run(config, nullptr);
  for (std::int64_t j = 0; j < 2; ++j) {
    EXPECT_EQ(result.matrix.at(3, j), result.matrix.at(j + 1, j));
  }
}

TEST(PackNet, TrainsEachExperienceWithAnOptimizerOfItsOwn) {
  const RunConfig config =
      parts_config("packnet", [](RunConfig& c) { c.train.optimizer = OptimizerKind::adam; });
  const std::int64_t steps = make_stream(config).steps_per_epoch(0, config.train.batch);
  // How many moments there are when so many steps have been made, or the first experience ended.
  const auto moments_after = [&](std::int64_t stops) {
    const auto store = storage::make_memory_store();
    int polls = 0;
    run(config, store.get(), [&] { return ++polls >= stops; });
    const std::vector<std::string> names = store->dense_names();
    return std::count_if(names.begin(), names.end(),
                         [](const std::string& name) { return name.starts_with("optimizer/"); });
  };
  EXPECT_GT(moments_after(steps), 0);
  EXPECT_EQ(moments_after(steps + 1), 0) << "the first experience's moments move the second";
}

TEST(Progressive, AColumnReadsTheHiddenLayersOfThoseBefore) {
  Driver driver(parts_config("progressive"));
  const std::vector<torch::Tensor> c0 = driver.parameters();
  EXPECT_EQ(driver.model->dense_parameters(), 13 * 20 + 21 * 20 + 21 * kClasses);
  learn(driver, 0);
  std::vector<torch::Tensor> before;
  for (const torch::Tensor& parameter : c0) before.push_back(parameter.detach().clone());
  StrategyContext second = driver.context(1);
  driver.strategy->before_experience(second);
  const std::vector<torch::Tensor> c1 = driver.parameters();
  EXPECT_EQ(driver.model->dense_parameters(),
            13 * 20 + 21 * 20 + 21 * kClasses + 13 * 20 + 41 * 20 + 41 * kClasses);
  for (const torch::Tensor& parameter : c0) parameter.mutable_grad().reset();
  driver.step(1, 0);
  for (std::size_t i = 0; i < c0.size(); ++i) {
    EXPECT_FALSE(c0[i].grad().defined());
    EXPECT_TRUE(torch::equal(c0[i], before[i]));
    EXPECT_GT(c1[i].grad().abs().sum().item<double>(), 0);
  }
  const torch::Tensor x = driver.stream.test_batch(1, 0, 40).x;
  const auto layer = [](const std::vector<torch::Tensor>& column, std::size_t i,
                        const torch::Tensor& in) {
    return in.mm(column[2 * i].t()) + column[2 * i + 1];
  };
  const torch::Tensor a = layer(c0, 0, x).relu(), b = layer(c0, 1, a).relu();
  const torch::Tensor own = layer(c1, 0, x).relu();
  const torch::Tensor top = layer(c1, 1, torch::cat({a, own}, 1)).relu();
  const torch::Tensor logits = layer(c1, 2, torch::cat({b, top}, 1));
  EXPECT_TRUE(torch::allclose(driver.model->test_forward(x), logits, 1e-5, 1e-6));
  // An experience that is still to come is answered by the newest column.
  EXPECT_EQ(driver.model->newest_generation(), 1);
  EXPECT_THROW(driver.model->predict(x, 2), Error);
}

TEST(Dropout, LeavesUnitsOutInTrainingOnly) {
  RunConfig config = mlp_config("naive", [](RunConfig& c) {
    c.model.depth = 1;
    c.model.hidden = 400;
    c.model.dropout = 0.25;
  });
  Driver driver(config), again(config);
  config.model.dropout = 0;
  Driver plain(config);
  const torch::NoGradGuard no_grad;
  const torch::Tensor x = driver.stream.test_batch(0, 0, 8).x;
  const torch::Tensor expected = plain.model->train_forward(x);
  EXPECT_TRUE(torch::equal(driver.model->test_forward(x), expected));
  EXPECT_TRUE(torch::equal(driver.model->predict(x, {}).answers, expected.softmax(1)));
  // With one hidden layer the logits are linear in who stays: their mean is the plain ones.
  torch::Tensor sum = torch::zeros_like(expected), squares = torch::zeros_like(expected);
  constexpr int kDraws = 400;
  std::set<float> distinct;
  for (int i = 0; i < kDraws; ++i) {
    const torch::Tensor logits = driver.model->train_forward(x);
    EXPECT_TRUE(torch::equal(again.model->train_forward(x), logits));
    distinct.insert(logits[0][0].item<float>());
    sum += logits;
    squares += logits * logits;
  }
  EXPECT_GT(distinct.size(), kDraws - 5U);
  const torch::Tensor mean = sum / kDraws;
  const torch::Tensor deviation = (squares / kDraws - mean * mean).sqrt();
  EXPECT_GT(deviation.min().item<double>(), 1e-3);
  // Within five standard errors, of 32 numbers.
  EXPECT_LT(((mean - expected).abs() / (deviation / std::sqrt(kDraws))).max().item<double>(), 5);
}

// A layer's first values and the first draws of a pool's dropout must not be the same numbers.
TEST(Dropout, OfAPoolSharesNoNumbersWithTheLayersAroundIt) {
  const auto weights = [](double dropout) {
    RunConfig config = mlp_config("naive");
    config.model.model = ModelKind::peer;
    config.model.width = 8;
    config.model.dropout = dropout;
    Driver driver(config);
    std::vector<torch::Tensor> layers;
    for (const auto& [name, tensor] : driver.model->trainable()) {
      if (name.starts_with("dense/")) layers.push_back(tensor.detach().flatten());
    }
    return torch::cat(layers);
  };
  const torch::Tensor beside = weights(0.5), alone = weights(0);
  EXPECT_FALSE(torch::equal(beside, alone));
  // With p = 1/2 what is kept are the upper halves of the numbers, as positive values are.
  const auto alike = [](const torch::Tensor& values) {
    torch::Tensor kept = torch::ones({64});
    float* data = kept.mutable_data_ptr<float>();
    kernels::dropout(1, 0, 0.5, data, data, 0, 64);
    return kept.gt(0).eq(values.narrow(0, 0, 64).gt(0)).sum().item<int>();
  };
  EXPECT_EQ(alike(alone), 64) << "draw 0 is the input layer's numbers";
  EXPECT_LT(alike(beside), 52);
}

}  // namespace
}  // namespace perennial::continual
