// SPDX-License-Identifier: Apache-2.0
// CLS-ER: its averages, its loss and who answers, against their definitions.
#include <ATen/ops/mse_loss.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "continual/strategies/strategy_contract.h"

namespace perennial::continual {
namespace {

// Nothing is replayed, and the model that answers is the one that trains.
void follow_at_once(RunConfig& config) {
  no_memory(config);
  config.train.strategy_options.set("cls_er_stable_rate", 1);
  config.train.strategy_options.set("cls_er_stable_decay", 0);
}

INSTANTIATE_TEST_SUITE_P(ClsEr, StrategyTest,
                         ::testing::Values(StrategyCase{"cls_er", "cls_er", {}, follow_at_once},
                                           StrategyCase{"cls_er_ring_permuted", "cls_er",
                                                        [](RunConfig& config) {
                                                          three_permutations(config);
                                                          config.train.strategy_options.set(
                                                              "buffer", "ring");
                                                          config.train.strategy_options.set(
                                                              "memory", 60);
                                                          config.model.dropout = 0.2;
                                                        },
                                                        follow_at_once}),
                         case_name);

RunConfig cls_er_config(double plastic_rate, double stable_rate) {
  return mlp_config("cls_er", [&](RunConfig& config) {
    config.train.strategy_options.set("cls_er_weight", 2);
    config.train.strategy_options.set("cls_er_plastic_rate", plastic_rate);
    config.train.strategy_options.set("cls_er_plastic_decay", 0.6);
    config.train.strategy_options.set("cls_er_stable_rate", stable_rate);
    config.train.strategy_options.set("cls_er_stable_decay", 0.9);
  });
}

TEST(ClsEr, AveragesFollowTheModel) {
  Driver driver(cls_er_config(1, 1));
  StrategyContext context = driver.context(0);
  driver.strategy->before_experience(context);
  torch::Tensor plastic = driver.values().clone(), stable = plastic.clone();
  for (std::int64_t step = 0; step < 12; ++step) {
    driver.step(0, step % 4);
    const torch::Tensor now = driver.values();
    const auto follow = [&](torch::Tensor& average, double decay) {
      const double keep = std::min(1 - 1 / static_cast<double>(step + 2), decay);
      average = average * keep + now * (1 - keep);
    };
    follow(plastic, 0.6);
    follow(stable, 0.9);
    StateMap state(*driver.strategy);
    EXPECT_TRUE(torch::allclose(state.tensors.at("cls_er/plastic"), plastic, 1e-6, 1e-7));
    EXPECT_TRUE(torch::allclose(state.tensors.at("cls_er/stable"), stable, 1e-6, 1e-7));
  }
}

TEST(ClsEr, UpdatesAreDrawn) {
  Driver driver(cls_er_config(0, 0.5));
  StrategyContext context = driver.context(0);
  driver.strategy->before_experience(context);
  const torch::Tensor start = driver.values().clone();
  torch::Tensor before = start;
  int updates = 0;
  for (std::int64_t step = 0; step < 40; ++step) {
    driver.step(0, step % 4);
    StateMap state(*driver.strategy);
    EXPECT_TRUE(torch::equal(state.tensors.at("cls_er/plastic"), start));
    const torch::Tensor stable = state.tensors.at("cls_er/stable").clone();
    updates += torch::equal(stable, before) ? 0 : 1;
    before = stable;
  }
  EXPECT_GT(updates, 8);
  EXPECT_LT(updates, 32);
}

TEST(ClsEr, HoldsReplayedOutputsToTheSurerAverage) {
  Driver driver(cls_er_config(1, 0.3));
  StrategyContext first = driver.context(0);
  driver.strategy->before_experience(first);
  // Old labels are what the slow average is surer of, new ones what the fast one is.
  for (std::int64_t step = 0; step < 16; ++step) driver.step(0, step % 4);
  StrategyContext context = driver.context(1);
  driver.strategy->before_experience(context);
  for (std::int64_t step = 0; step < 8; ++step) driver.step(1, step % 4);
  StateMap state(*driver.strategy);
  const torch::Tensor plastic = state.tensors.at("cls_er/plastic").clone(),
                      stable = state.tensors.at("cls_er/stable").clone();
  const Batch batch = driver.stream.train_batch(1, 0, 0, driver.config.train.batch, 1);
  TrainingBatch rows{batch.x, batch.y, batch.y.size(0)};
  driver.strategy->before_step(context, rows);
  const std::int64_t replayed = rows.rows() - rows.fresh;
  ASSERT_GT(replayed, 0);
  rows.outputs = driver.model->train_forward(rows.x);
  const double loss = driver.strategy->extra_loss(context, rows).item<double>();

  const torch::Tensor own = driver.values().clone(), x = rows.x.narrow(0, rows.fresh, replayed);
  const auto outputs_with = [&](const torch::Tensor& values) {
    driver.set_values(values);
    const torch::NoGradGuard no_grad;
    return driver.model->test_forward(x);
  };
  const torch::Tensor of_plastic = outputs_with(plastic), of_stable = outputs_with(stable);
  driver.set_values(own);
  torch::Tensor z = torch::empty_like(of_plastic);
  int from_stable = 0;
  for (std::int64_t i = 0; i < replayed; ++i) {
    const auto label = rows.y[rows.fresh + i].item<std::int64_t>();
    const bool surer = of_stable[i].softmax(0)[label].item<float>() >
                       of_plastic[i].softmax(0)[label].item<float>();
    from_stable += surer ? 1 : 0;
    z[i] = surer ? of_stable[i] : of_plastic[i];
  }
  EXPECT_GT(from_stable, 0);
  EXPECT_LT(from_stable, replayed);
  const double wanted =
      2 * at::mse_loss(rows.outputs.detach().narrow(0, rows.fresh, replayed), z).item<double>();
  EXPECT_NEAR(loss, wanted, 1e-5 * wanted);
  EXPECT_GT(wanted, 0);
}

TEST(ClsEr, TheStableModelAnswers) {
  Driver driver(cls_er_config(1, 1));
  StrategyContext context = driver.context(0);
  driver.strategy->before_experience(context);
  for (std::int64_t step = 0; step < 8; ++step) driver.step(0, step % 4);
  StateMap state(*driver.strategy);
  const torch::Tensor stable = state.tensors.at("cls_er/stable").clone(),
                      own = driver.values().clone();
  const Batch batch = driver.stream.test_batch(0, 0, 20);
  const torch::Tensor answers =
      driver.strategy->predict(*driver.model, batch.x, std::nullopt)->answers;
  EXPECT_TRUE(torch::equal(driver.values(), own));
  EXPECT_FALSE(torch::equal(answers, driver.model->predict(batch.x, std::nullopt).answers));
  driver.set_values(stable);
  EXPECT_TRUE(torch::equal(answers, driver.model->predict(batch.x, std::nullopt).answers));
}

}  // namespace
}  // namespace perennial::continual
