// SPDX-License-Identifier: Apache-2.0
// Dense models over the fixed filters of the analytic head, and without hidden layers.
#include <gtest/gtest.h>

#include <vector>

#include "continual/run/learner_testing.h"
#include "perennial/continual/model.h"
#include "perennial/core/analytic_head.h"
#include "perennial/core/fixed_features.h"

namespace perennial::continual {
namespace {

void on_filters(RunConfig& c) {
  c.model.model = ModelKind::mlp;
  c.model.inputs = InputKind::filters;
  c.model.depth = 0;
  c.model.head_filters = 3;
  c.model.head_filter_size = 2;
  c.model.head_grid = 2;
  c.train.strategy = "joint";
}

Stream images(const RunConfig& config) { return {config.stream, image_data()}; }

class DenseInputsTest : public ::testing::TestWithParam<Case> {};

TEST_P(DenseInputsTest, LearnsAndResumesAtEveryStep) {
  const RunConfig config = small_config(GetParam());
  const auto store = storage::make_memory_store();
  const RunResult whole = expect_resumes(
      config, [&] { return images(config); }, store.get());
  EXPECT_GT(whole.matrix.at(3, 2), whole.matrix.at(0, 2) + 0.1);
}

INSTANTIATE_TEST_SUITE_P(Runs, DenseInputsTest,
                         ::testing::Values(Case{"linear_joint", on_filters},
                                           Case{"linear_replay",
                                                [](RunConfig& c) {
                                                  on_filters(c);
                                                  c.train.strategy = "er";
                                                  c.train.strategy_options.set("memory", 20);
                                                }},
                                           // Both make a new model while they learn.
                                           Case{"gdumb",
                                                [](RunConfig& c) {
                                                  on_filters(c);
                                                  c.train.strategy = "gdumb";
                                                  c.train.strategy_options.set("memory", 40);
                                                }},
                                           Case{"packnet",
                                                [](RunConfig& c) {
                                                  on_filters(c);
                                                  c.model.depth = 1;
                                                  c.train.strategy = "packnet";
                                                  c.train.gate = GateChoice::oracle;
                                                }},
                                           Case{"columns",
                                                [](RunConfig& c) {
                                                  on_filters(c);
                                                  c.model.depth = 1;
                                                  c.train.strategy = "progressive";
                                                  c.train.gate = GateChoice::oracle;
                                                }}),
                         [](const auto& info) { return info.param.name; });

TEST(DenseInputs, AreTheFeaturesOfTheAnalyticHead) {
  RunConfig config = small_config({"", on_filters});
  config.model.seed = 5;
  const Stream stream = images(config);
  const Batch batch = stream.train_batch(0, 0, 0, 60, 1);
  const auto linear = make_model(config, 12, kClasses, nullptr, 0, {3, 4});
  std::vector<LayerUse> uses;
  linear->traced_forward(batch.x, uses);
  ASSERT_EQ(uses.size(), 1U);
  const torch::Tensor f = uses[0].input;

  EXPECT_TRUE(torch::equal(f, FixedFeatures(12, {3, 4},
                                            {.kind = FeatureKind::convolution,
                                             .filters = 3,
                                             .filter_size = 2,
                                             .grid = 2,
                                             .seed = 5,
                                             .stream = 0x48000000})(batch.x)));
  // A head of its own over what the linear model reads answers as the head model does.
  config.model.model = ModelKind::peer;
  config.model.inputs = InputKind::raw;
  config.model.head = HeadKind::analytic;
  config.model.head_pool = 0;
  config.train.strategy = "naive";
  config.validate();
  const auto solved = make_model(config, 12, kClasses, nullptr, 0, {3, 4});
  solved->observe(batch.x, batch.y);
  AnalyticHead head(f.size(1), kClasses, config.model.head_ridge);
  head.observe(f, batch.y);
  EXPECT_TRUE(torch::equal(solved->train_forward(batch.x), 10 * head.scores(f)));
}

TEST(DenseInputs, AreRefusedWhereTheyCannotWork) {
  const auto with = [](const std::function<void(RunConfig&)>& change) {
    RunConfig config = small_config({"", on_filters});
    change(config);
    return config;
  };
  EXPECT_NO_THROW(with([](RunConfig&) {}).validate());
  expect_invalid(with([](RunConfig& c) { c.model.model = ModelKind::peer; }), "model mlp");
  expect_invalid(with([](RunConfig& c) { c.model.head_filters = 0; }), "head_filters");
  expect_invalid(with([](RunConfig& c) { c.model.dropout = 0.5; }), "dropout");
  const RunConfig config = with([](RunConfig&) {});
  const auto store = storage::make_memory_store();
  EXPECT_THROW(Trainer(config, make_stream(config), store.get(), {}), InvalidOptions)
      << "inputs that are no images";
  EXPECT_FALSE(store->head().ok()) << "the store is as it was";
}

}  // namespace
}  // namespace perennial::continual
