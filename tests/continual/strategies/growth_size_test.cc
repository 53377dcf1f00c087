// SPDX-License-Identifier: Apache-2.0
// Generations that become as large as their loss asks for.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "continual/run/learner_testing.h"

namespace perennial::continual {
namespace {

void by_need(RunConfig& c) {
  c.train.strategy_options.set("growth_size", "need");
  c.train.strategy_options.set("growth_start", 2);
  c.train.strategy_options.set("growth_window", 2);
  c.train.strategy_options.set("growth_loss", 0);
}

// Two experiences of two classes: the first's are told apart by bright pixels, the second's images
// have none, whatever their class.
Stream easy_then_hard(RunConfig& config, bool hard_first) {
  config.stream.stream = StreamKind::split;
  config.stream.experiences = 2;
  TrainTest data = image_data();
  for (Dataset* part : {&data.train, &data.test}) {
    const std::int64_t hard = hard_first ? 0 : 2;
    for (std::int64_t i = 0; i < part->size(); ++i) {
      const auto label = part->y[i].item<std::int64_t>();
      if (label / 2 * 2 == hard) part->x[i].fill_(i % 7);
    }
  }
  return {config.stream, std::move(data)};
}

std::vector<std::uint32_t> columns_of(const storage::PageStore& store) {
  std::vector<std::uint32_t> columns;
  for (const Generation& g : Pool::stored_generations(0, store)) columns.push_back(g.cols);
  return columns;
}

TEST(GrowthByNeed, AHardExperienceGetsALargerGenerationThanAnEasyOne) {
  for (const bool hard_first : {false, true}) {
    RunConfig config = small_config({"", by_need});
    config.train.strategy_options.set("growth_loss", 0.5);
    config.train.epochs = 6;
    config.train.lr = 0.03;
    const auto store = storage::make_memory_store();
    learn(config, easy_then_hard(config, hard_first), store.get());
    const std::vector<std::uint32_t> columns = columns_of(*store);
    ASSERT_EQ(columns.size(), 2U);
    EXPECT_EQ(columns[hard_first ? 0 : 1], 6U) << "the hard one has all columns";
    EXPECT_LT(columns[hard_first ? 1 : 0], 6U) << "the easy one has not";
    EXPECT_TRUE(load_learnt(*store, 0).model->only_layer()->frozen_intact());
  }
}

class GrowthByNeedRun : public ::testing::TestWithParam<Case> {};

TEST_P(GrowthByNeedRun, LearnsAndResumesAtEveryStep) {
  const RunConfig config = small_config(GetParam());
  const auto store = storage::make_memory_store();
  const RunResult whole = expect_resumes(
      config, [&] { return make_stream(config); }, store.get());
  EXPECT_GT(whole.matrix.at(3, 2), whole.matrix.at(0, 2) + 0.2);
  const std::vector<std::uint32_t> columns = columns_of(*store);
  EXPECT_GT(*std::max_element(columns.begin(), columns.end()), 2U) << "some generation has grown";
}

INSTANTIATE_TEST_SUITE_P(Runs, GrowthByNeedRun,
                         ::testing::Values(Case{"every_two_steps",
                                                [](RunConfig& c) {
                                                  by_need(c);
                                                  c.train.epochs = 3;
                                                }},
                                           Case{"class_heads_and_replay",
                                                [](RunConfig& c) {
                                                  by_need(c);
                                                  c.train.gate_options.head_weight = 5;
                                                  c.train.epochs = 3;
                                                  c.train.strategy = StrategySet::parse(
                                                      "strategy", "grow_freeze+er");
                                                }},
                                           Case{"five_steps_of_sgd",
                                                [](RunConfig& c) {
                                                  by_need(c);
                                                  c.train.strategy_options.set("growth_window", 5);
                                                  c.train.epochs = 2;
                                                  c.train.optimizer = OptimizerKind::sgd;
                                                  c.train.lr = 0.4;
                                                }}),
                         [](const auto& info) { return info.param.name; });

TEST(GrowthByNeed, WithAllColumnsFromTheStartIsAFixedSize) {
  RunConfig config = small_config({"", by_need});
  const RunResult full = run(small_config({"", [](RunConfig&) {}}), nullptr);
  config.train.strategy_options.set("growth_start", config.model.peer.cols);
  EXPECT_EQ(matrix_of(run(config, nullptr)), matrix_of(full));
}

TEST(GrowthByNeed, ALossBelowTheLimitGrowsNothing) {
  RunConfig config = small_config({"", by_need});
  config.train.strategy_options.set("growth_loss", 1000);
  const auto store = storage::make_memory_store();
  run(config, store.get());
  EXPECT_EQ(columns_of(*store), (std::vector<std::uint32_t>{2, 2, 2}));
}

TEST(GrowthByNeed, IsRefusedWhereItCannotWork) {
  const auto with = [](const std::function<void(RunConfig&)>& change) {
    RunConfig config = small_config({"", by_need});
    change(config);
    return config;
  };
  EXPECT_NO_THROW(with([](RunConfig&) {}).validate());
  expect_invalid(with([](RunConfig& c) { c.model.peer.routing = Routing::shared; }), "isolated");
  expect_invalid(with([](RunConfig& c) { c.train.strategy = "naive"; }), "grow_freeze");
  expect_invalid(with([](RunConfig& c) { c.model.head = HeadKind::analytic; }), "head trained");
  expect_invalid(with([](RunConfig& c) { c.train.strategy_options.set("growth", "drift"); }),
                 "drift");
  expect_invalid(with([](RunConfig& c) { c.train.strategy_options.set("growth_start", 7); }),
                 "growth_start");
  expect_invalid(with([](RunConfig& c) {
                   c.model.peer.rows = 1;
                   c.model.peer.top_k = 3;
                 }),
                 "top_k");
}

}  // namespace
}  // namespace perennial::continual
