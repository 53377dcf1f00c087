// SPDX-License-Identifier: Apache-2.0
// Runs that learn numbers: what they reach, stopping and going on bit for bit, further data, and
// what is refused before anything starts.
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>

#include <boost/json/serialize.hpp>
#include <cmath>
#include <fstream>

#include "continual/data/data_files.h"
#include "continual/run/learner_testing.h"
#include "perennial/continual/evaluate.h"
#include "perennial/continual/further_data.h"
#include "perennial/continual/run_folder.h"
#include "perennial/continual/unlearn.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

constexpr std::int64_t kInputs = 4;

// n rows whose targets are sums of their features, of which `shift` says where they lie; noise of a
// few hundredths of the targets' deviation.
Dataset house_rows(std::int64_t n, std::uint64_t seed, double shift) {
  Dataset data;
  data.table = true;
  data.columns = {"size", "rooms", "age", "floor"};
  data.targets = {"price", "rent"};
  data.x = torch::empty({n, kInputs}, torch::kDouble);
  data.y = torch::empty({n, 2}, torch::kDouble);
  kernels::RandomStream random(seed);
  double *x = data.x.mutable_data_ptr<double>(), *y = data.y.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < n; ++i, x += kInputs, y += 2) {
    for (std::int64_t j = 0; j < kInputs; ++j) x[j] = shift + random.below(1000) / 100.0;
    y[0] = 5000 + 300 * x[0] + 200 * x[1] - 100 * x[2] + random.below(50);
    y[1] = 20 + x[3] - 0.5 * x[1] + random.below(10) / 100.0;
  }
  return data;
}

TrainTest monday_houses() { return {house_rows(160, 3, 0), house_rows(60, 4, 0), "monday"}; }
TrainTest tuesday_houses() { return {house_rows(160, 5, 20), house_rows(60, 6, 20), "tuesday"}; }

RunConfig house_config(const std::string& strategy, ModelKind model,
                       StreamKind stream = StreamKind::permuted) {
  return small_config({"houses", [&](RunConfig& config) {
                         config.stream.stream = stream;
                         config.stream.experiences = stream == StreamKind::single ? 1 : 2;
                         config.stream.table.task = TaskKind::regression;
                         config.train.strategy = StrategySet(strategy);
                         config.train.epochs = 8;
                         config.train.strategy_options.set("memory", 40);
                         config.train.strategy_options.set("task_memory", 16);
                         config.model.model = model;
                         config.model.peer.query_norm = QueryNorm::layer;
                       }});
}

Stream house_stream(const RunConfig& config) { return {config.stream, monday_houses()}; }

struct HouseCase {
  std::string strategy;
  ModelKind model;
  std::function<void(RunConfig&)> change = [](RunConfig&) {};
};
void PrintTo(const HouseCase& house, std::ostream* out) {
  *out << house.strategy << " of " << enum_name(house.model);
}

class RegressionRunTest : public ::testing::TestWithParam<HouseCase> {
 protected:
  RunConfig config() const {
    RunConfig config = house_config(GetParam().strategy, GetParam().model);
    GetParam().change(config);
    return config;
  }
};

TEST_P(RegressionRunTest, LearnsAndResumesBitForBit) {
  const RunConfig config = this->config();
  const auto store = storage::make_memory_store();
  const RunResult result = expect_resumes(
      config, [&] { return house_stream(config); }, store.get());
  const std::int64_t last = result.matrix.experiences();
  EXPECT_GT(result.matrix.at(last, last - 1), result.matrix.at(0, last - 1) + 0.2);
  expect_answers_of(result, *store, house_stream(config));
  ASSERT_EQ(std::ssize(result.errors), last);
  ASSERT_EQ(result.errors[0].size(), 2U);
  EXPECT_TRUE(std::isfinite(result.errors[0][1]));
}

INSTANTIATE_TEST_SUITE_P(
    Strategies, RegressionRunTest,
    ::testing::Values(
        HouseCase{"naive", ModelKind::mlp}, HouseCase{"joint", ModelKind::mlp},
        HouseCase{"cumulative", ModelKind::mlp}, HouseCase{"er", ModelKind::mlp},
        HouseCase{"er", ModelKind::mlp,
                  [](RunConfig& c) {
                    c.train.strategy_options.set("buffer", "ring");
                    c.train.strategy_options.set("memory_fill", "experience");
                  }},
        HouseCase{"der++", ModelKind::mlp}, HouseCase{"lwf", ModelKind::mlp},
        HouseCase{"l2", ModelKind::mlp},
        HouseCase{"ewc", ModelKind::mlp,
                  [](RunConfig& c) { c.train.strategy_options.set("ewc_strength", 1); }},
        HouseCase{"ewc", ModelKind::mlp,
                  [](RunConfig& c) {
                    c.train.strategy_options.set("ewc_strength", 1);
                    c.train.strategy_options.set("fisher", "exact");
                  }},
        HouseCase{"si", ModelKind::mlp,
                  [](RunConfig& c) { c.train.strategy_options.set("si_strength", 0.1); }},
        HouseCase{"mas", ModelKind::mlp,
                  [](RunConfig& c) { c.train.strategy_options.set("mas_strength", 0.1); }},
        HouseCase{"gem", ModelKind::mlp}, HouseCase{"agem", ModelKind::mlp},
        HouseCase{"naive", ModelKind::peer,
                  [](RunConfig& c) {
                    c.train.epochs = 1;
                    c.model.head = HeadKind::analytic;
                    c.model.head_inputs = HeadInputs::columns;
                    c.model.head_width = 48;
                  }},
        HouseCase{"naive", ModelKind::peer}, HouseCase{"grow_freeze", ModelKind::peer},
        HouseCase{"grow_freeze", ModelKind::peer,
                  [](RunConfig& c) { c.train.gate_options.gate_answer = GateAnswer::mixed; }},
        HouseCase{"grow_freeze+er", ModelKind::peer},
        HouseCase{"grow_freeze+lwf", ModelKind::peer}));

TEST(RegressionRun, GrowsByDriftOfTheLoss) {
  RunConfig config = house_config("grow_freeze", ModelKind::peer);
  config.train.epochs = 1;
  config.train.batch = 8;
  config.train.strategy_options.set("growth", "drift");
  config.train.strategy_options.set("drift_window", 10);
  const TrainTest data{house_rows(600, 3, 0), house_rows(60, 4, 0), "houses"};
  const auto store = storage::make_memory_store();
  const RunResult result = expect_resumes(
      config, [&] { return Stream(config.stream, data); }, store.get());
  EXPECT_TRUE(result.finished);
  EXPECT_EQ(load_learnt(*store, 0).model->only_layer()->pool().generations().size(), 2U);
}

TEST(RegressionRun, GoesOnWithFurtherData) {
  for (const auto& [strategy, model] :
       {std::pair{"er", ModelKind::mlp}, {"grow_freeze", ModelKind::peer}}) {
    SCOPED_TRACE(strategy);
    const RunConfig config = house_config(strategy, model, StreamKind::single);
    const auto store = storage::make_memory_store();
    const RunResult first = learn(config, house_stream(config), store.get());
    EXPECT_GT(first.matrix.at(1, 0), 0.8);
    const auto further = [&] {
      return Stream(config.stream, tuesday_houses(), load_learnt(*store, 0).known());
    };
    const RunResult both = learn(config, further(), store.get());
    ASSERT_TRUE(both.finished);
    ASSERT_EQ(both.matrix.experiences(), 2);
    // The scale of the targets stays that of the first data, so what was measured means the same.
    EXPECT_EQ(both.matrix.at(1, 0), first.matrix.at(1, 0));
    EXPECT_GT(both.matrix.at(2, 1), both.matrix.at(1, 1) + 0.3);
    const LearntModel learnt = load_learnt(*store, 0);
    EXPECT_EQ(learnt.targets.means, house_stream(config).targets().means);
    const Stream tests = Stream::of_tests(learnt.config.stream, learnt.known(), learnt.data_digest);
    const Evaluation again = evaluate(*learnt.model, tests, false);
    EXPECT_EQ(again.scores, (std::vector<double>{both.matrix.at(2, 0), both.matrix.at(2, 1)}));
    EXPECT_EQ(again.errors, both.errors);
    // Other targets are others.
    TrainTest renamed = tuesday_houses();
    renamed.train.targets = renamed.test.targets = {"price", "tax"};
    expect_data_error([&] { Stream(config.stream, renamed, learnt.known()); },
                      {"'price', 'tax'", "'price', 'rent'"});
  }
}

// The errors that were measured before go back with the rest.
TEST(RegressionRun, UnlearnsToTheBitsOfBefore) {
  const RunConfig config = house_config("grow_freeze", ModelKind::peer);
  const auto store = storage::make_memory_store();
  const RunResult whole = learn(config, house_stream(config), store.get());
  storage::Digest before;
  for (const storage::CommitInfo& info : store->log()) {
    if (info.snapshot == "experience-1") before = info.state_digest;
  }
  EXPECT_EQ(unlearn(*store, {}).commit.state_digest, before);
  EXPECT_EQ(learn(config, house_stream(config), store.get()).state_digest, whole.state_digest);
}

TEST(RegressionRun, RecordsRSquaredAndErrors) {
  const TempFolder folder;
  RunConfig config = house_config("er", ModelKind::mlp);
  config.train.anytime.anytime_every = 10;
  config.train.anytime.anytime_examples = 20;
  RunSettings settings;
  settings.run_folder = folder.path() / "run";
  const RunResult result = Trainer(config, house_stream(config), nullptr, settings).run();
  const boost::json::object json = result.to_json();
  EXPECT_TRUE(json.contains("r2"));
  EXPECT_TRUE(json.contains("min_r2"));
  EXPECT_FALSE(json.contains("acc"));
  EXPECT_EQ(json.at("rmse").at("rent").as_array().size(), 2U);
  const RunFolder run = read_run_folder(settings.run_folder);
  EXPECT_EQ(run.task, TaskKind::regression);
  // Their text is read back to the last digit but one.
  EXPECT_NEAR(run.matrix.at(2, 1), result.matrix.at(2, 1), 1e-12);
  EXPECT_NEAR(run.metrics().at("r2").as_double(), json.at("r2").as_double(), 1e-12);
  EXPECT_TRUE(std::filesystem::exists(settings.run_folder / "report.html"));
}

TEST(RegressionRun, WhatNeedsClassesIsRefusedByName) {
  const auto refused = [](const std::string& word, const std::function<void(RunConfig&)>& change,
                          const std::string& strategy = "er", ModelKind model = ModelKind::mlp) {
    RunConfig config = house_config(strategy, model);
    change(config);
    expect_invalid(config, word);
    expect_invalid(config, "task regression");
  };
  const auto as_it_is = [](RunConfig&) {};
  for (const char* strategy : {"icarl", "gdumb", "er_ace"}) {
    refused(std::string("strategy ") + strategy, as_it_is, strategy);
    EXPECT_FALSE(strategy_named("strategy", strategy).needs.classes.empty());
  }
  for (const char* buffer : {"class_balanced", "greedy"}) {
    refused("buffer", [&](RunConfig& c) {
      c.train.strategy = "er";
      c.train.strategy_options.set("buffer", buffer);
    });
  }
  refused("split", [](RunConfig& c) { c.stream.stream = StreamKind::split; });
  refused("scenario class", [](RunConfig& c) { c.stream.scenario = Scenario::class_incremental; });
  refused("label_column", [](RunConfig& c) { c.stream.table.label_column = "rent"; });
  refused(
      "head_weight", [](RunConfig& c) { c.train.gate_options.head_weight = 1; }, "grow_freeze",
      ModelKind::peer);
  refused(
      "spare_classes", [](RunConfig& c) { c.model.spare_classes = 1; }, "naive", ModelKind::peer);
}

// What was learnt before there were tasks keeps its configuration, and its digest.
TEST(RegressionRun, AClassificationSaysNothingOfItsTask) {
  const boost::json::object json = RunConfig().to_json();
  EXPECT_FALSE(json.at("stream").as_object().contains("task"));
  EXPECT_FALSE(json.at("stream").as_object().contains("target_column"));
  RunConfig config = house_config("er", ModelKind::mlp);
  config.stream.table.target_column = "price";
  const RunConfig back = RunConfig::from_json(config.to_json());
  EXPECT_EQ(back.task(), TaskKind::regression);
  EXPECT_EQ(back.stream.table.target_column, "price");
}

}  // namespace
}  // namespace perennial::continual
