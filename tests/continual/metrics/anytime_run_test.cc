// SPDX-License-Identifier: Apache-2.0
// Evaluating while a run learns: where the points are, that no trained bit changes, and that a
// stopped run goes on with the same curve.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "continual/run/trainer_testing.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

RunConfig with_points(RunConfig config) {
  config.train.anytime = {.anytime_every = 3, .anytime_first = 2, .anytime_examples = 10};
  return config;
}

// Digests of all that was learnt: pages, and dense entries other than the run's own.
std::map<std::string, std::string> learnt(const storage::PageStore& store) {
  std::map<std::string, std::string> digests;
  for (const std::string& name : store.dense_names()) {
    if (name != "run" && name != "run/anytime") {
      digests[name] = store.dense_digest(name).value().hex();
    }
  }
  for (const storage::PageId& id : store.pages()) {
    digests["page " + std::to_string(id.pool) + " " + std::to_string(id.row) + " " +
            std::to_string(id.tile)] += store.page_digest(id).value().hex();
  }
  return digests;
}

class AnytimeRun : public ::testing::TestWithParam<Case> {};

TEST_P(AnytimeRun, ChangesNoTrainedBit) {
  const RunConfig config = small_config(GetParam());
  const auto without = storage::make_memory_store(), with = storage::make_memory_store();
  const RunResult plain = run(config, without.get());
  const RunResult watched = run(with_points(config), with.get());
  EXPECT_TRUE(plain.anytime.points.empty());
  EXPECT_FALSE(watched.anytime.points.empty());
  EXPECT_EQ(matrix_of(watched), matrix_of(plain));
  EXPECT_EQ(watched.gate_accuracy, plain.gate_accuracy);
  EXPECT_GT(learnt(*without).size(), 3U);
  EXPECT_EQ(learnt(*with), learnt(*without));
}

TEST_P(AnytimeRun, StoppedAndContinuedHasTheSameCurve) {
  const RunConfig config = with_points(small_config(GetParam()));
  const auto whole_store = storage::make_memory_store(), store = storage::make_memory_store();
  const RunResult whole = run(config, whole_store.get());
  const RunResult last = learn_in_parts(
      [&](const auto& stop) { return run(config, store.get(), stop); }, one_to_three, 0);
  EXPECT_EQ(last.anytime.points, whole.anytime.points);
  EXPECT_EQ(last.state_digest, whole.state_digest);
  // And as a finished run returns it.
  EXPECT_EQ(run(config, store.get()).anytime.points, whole.anytime.points);
}

INSTANTIATE_TEST_SUITE_P(
    Runs, AnytimeRun,
    ::testing::Values(kGrowFreeze,
                      Case{"oracle", [](RunConfig& c) { c.train.gate = GateChoice::oracle; }},
                      Case{"dropout",
                           [](RunConfig& c) {
                             c.train.strategy = "naive";
                             c.model.dropout = 0.2;
                           }},
                      Case{"joint_mlp",
                           [](RunConfig& c) {
                             c.train.strategy = "joint";
                             c.model.model = ModelKind::mlp;
                           }}),
    [](const auto& info) { return info.param.name; });

TEST(AnytimeRuns, TakePointsWhereTheyWereAskedFor) {
  const RunConfig config = with_points(small_config(kGrowFreeze));
  const RunResult result = run(config, nullptr);
  // 100 examples in batches of 16: seven steps an experience.
  std::vector<std::string> found;
  for (const AnytimePoint& point : result.anytime.points) {
    found.push_back(std::to_string(point.experience) + "." + std::to_string(point.minibatch) +
                    (point.end ? "!" : ""));
    EXPECT_EQ(std::ssize(point.scores), point.experience);
    EXPECT_EQ(point.steps, 7 * (point.experience - 1) + point.minibatch);
    for (const double accuracy : point.scores) {
      EXPECT_NEAR(accuracy * 10, std::round(accuracy * 10), 1e-12);  // of ten examples
    }
  }
  EXPECT_EQ(found, (std::vector<std::string>{"1.0", "1.1", "1.2", "1.3", "1.6", "1.7!",  //
                                             "2.0", "2.1", "2.2", "2.5", "2.7!",         //
                                             "3.0", "3.1", "3.2", "3.4", "3.7", "3.7!"}));
  const boost::json::object json = result.to_json();
  for (const char* name : {"lca", "anytime", "min_acc", "wc_acc"}) {
    EXPECT_TRUE(json.at(name).is_double()) << name;
  }
}

TEST(AnytimeRuns, OnWholeTestSetsTheEndsAreTheMatrix) {
  RunConfig config = with_points(small_config(kGrowFreeze));
  config.train.anytime.anytime_examples = 0;
  const RunResult result = run(config, nullptr);
  int ends = 0;
  for (const AnytimePoint& point : result.anytime.points) {
    if (!point.end) continue;
    ++ends;
    for (std::int64_t j = 0; j < point.experience; ++j) {
      EXPECT_EQ(point.scores[static_cast<std::size_t>(j)], result.matrix.at(point.experience, j));
    }
  }
  EXPECT_EQ(ends, 3);
}

TEST(AnytimeRuns, WithoutTheOptionThereAreNone) {
  const RunResult result = run(small_config(kGrowFreeze), nullptr);
  EXPECT_TRUE(result.anytime.points.empty());
  EXPECT_FALSE(result.to_json().contains("anytime"));
}

}  // namespace
}  // namespace perennial::continual
