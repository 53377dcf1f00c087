// SPDX-License-Identifier: Apache-2.0
// Tuning: what is tried, in which order, that the best of it is chosen, and what a trial reads.
#include "perennial/continual/tuning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace perennial::continual {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

ProtocolRow row_of(const char* protocol, const char* name) {
  for (const ProtocolRow& row : load_protocol(protocol, "", "x").rows) {
    if (row.name == name) return row;
  }
  throw std::logic_error(name);
}

// Runs what is open until nothing is, as a benchmark does; `acc` says what a trial reaches.
Tuning settle(const ProtocolRow& row, const std::function<double(const RunConfig&)>& acc,
              std::size_t* rounds = nullptr) {
  std::set<std::string> done;
  for (std::size_t round = 0;; ++round) {
    Tuning tuning = tune(row, [&](const Trial& trial) -> std::optional<double> {
      return done.contains(trial.name()) ? std::optional(acc(trial.config)) : std::nullopt;
    });
    if (rounds != nullptr) *rounds = round;
    if (tuning.open.empty()) return tuning;
    EXPECT_FALSE(tuning.best.has_value()) << "chosen before everything is known";
    for (const Trial& trial : tuning.open) EXPECT_TRUE(done.insert(trial.name()).second);
  }
}

std::vector<std::string> names(const std::vector<Tried>& tried) {
  std::vector<std::string> all;
  for (const Tried& one : tried) all.push_back(one.trial.name());
  return all;
}

// Best at Adam and this rate, falling with the distance in decades.
double around(const RunConfig& config, double rate) {
  return (config.train.optimizer == OptimizerKind::adam ? 0.9 : 0.5) -
         0.1 * std::abs(std::log10(config.train.lr / rate)) -
         (config.train.lr_schedule == LrSchedule::linear ? 0 : 0.01);
}

TEST(Tuning, TriesTheSameGridForEveryRowThatTrains) {
  const std::vector<std::string> grid = {
      "adam-0.0003-constant", "adam-0.0003-linear", "adam-0.001-constant", "adam-0.001-linear",
      "adam-0.003-constant",  "adam-0.003-linear",  "sgd-0.03-constant",   "sgd-0.03-linear",
      "sgd-0.1-constant",     "sgd-0.1-linear"};
  for (const char* name : {"joint", "naive", "er-500", "agem"}) {
    SCOPED_TRACE(name);
    const Tuning tuning =
        settle(row_of("permuted", name), [](const RunConfig& c) { return around(c, 1e-3); });
    EXPECT_EQ(names(tuning.tried), grid);
    ASSERT_TRUE(tuning.best);
    EXPECT_EQ(tuning.best->trial.text(), "adam 0.001 linear");
    EXPECT_DOUBLE_EQ(tuning.best->acc, 0.9);
    EXPECT_THAT(tuning.edges, IsEmpty());
    // Everything but what was tuned is the row's.
    EXPECT_THAT(differences(row_of("permuted", name).config, tuning.best->trial.config),
                ::testing::Each(::testing::AnyOf(::testing::HasSubstr("train.optimizer"),
                                                 ::testing::HasSubstr("train.lr"))));
  }
}

TEST(Tuning, WidensTheGridAtAnEdgeAndSaysWhatLiesAtTheLast) {
  const ProtocolRow row = row_of("permuted", "naive");
  Tuning tuning = settle(row, [](const RunConfig& c) { return around(c, 1e-4); });
  EXPECT_EQ(tuning.best->trial.name(), "adam-0.0001-linear");
  EXPECT_EQ(tuning.tried.size(), 11U);
  EXPECT_THAT(tuning.edges, ElementsAre("lr 0.0001 is the smallest that was tried"));
  tuning = settle(row, [](const RunConfig& c) { return -around(c, 0.3) - c.train.lr; });
  EXPECT_EQ(tuning.best->trial.name(), "sgd-0.003-constant") << "two steps down";
  EXPECT_EQ(tuning.tried.size(), 12U);
  tuning = settle(row, [](const RunConfig& c) { return c.train.lr; });
  EXPECT_EQ(tuning.best->trial.name(), "sgd-1-constant");
  EXPECT_THAT(tuning.edges, ElementsAre("lr 1 is the largest that was tried"));
  // 0.003, the grid's largest, is inside once 0.01 is worse.
  tuning = settle(row, [](const RunConfig& c) { return around(c, 3e-3); });
  EXPECT_EQ(tuning.best->trial.name(), "adam-0.003-linear");
  EXPECT_EQ(tuning.tried.size(), 11U);
  EXPECT_THAT(tuning.edges, IsEmpty());
}

TEST(Tuning, ChoosesTheAxesOneAfterTheOtherAtTheBestSoFar) {
  ProtocolRow row = row_of("permuted", "si");
  row.axes = {{"train", "si_strength", {0.1, 0.3, 1}}, {"train", "batch", {32, 64, 128}}};
  std::size_t rounds = 0;
  const Tuning tuning = settle(
      row,
      [](const RunConfig& c) {
        return around(c, 1e-3) -
               std::abs(c.train.strategy_options.get("si_strength").to_number<double>() - 1) / 100 +
               static_cast<double>(c.train.batch) / 1e6;
      },
      &rounds);
  EXPECT_EQ(tuning.best->trial.text(), "adam 0.001 linear, si_strength 1, batch 128");
  EXPECT_EQ(tuning.tried.size(), 10U + 2 + 2) << "the row's own values were tried with the grid";
  EXPECT_EQ(rounds, 3U);
  EXPECT_THAT(tuning.edges, ElementsAre("si_strength 1 is the largest that was tried",
                                        "batch 128 is the largest that was tried"));
}

TEST(Tuning, OfEqualsTheFirstIsTheBest) {
  const Tuning tuning = settle(row_of("permuted", "ewc"), [](const RunConfig&) { return 0.5; });
  EXPECT_EQ(tuning.best->trial.settings, tuning.tried.front().trial.settings);
}

TEST(Tuning, LeavesOutWhatARowCannotHave) {
  // GDumb trains after an experience and has no schedule within it.
  Tuning tuning = settle(row_of("permuted", "gdumb-2000"), [](const RunConfig&) { return 0.5; });
  for (const Tried& tried : tuning.tried) {
    EXPECT_EQ(tried.trial.config.train.lr_schedule, LrSchedule::constant);
  }
  // A head that is solved has no rate.
  tuning = settle(row_of("split-class", "head-without-pool"),
                  [](const RunConfig& c) { return -c.model.head_ridge; });
  EXPECT_EQ(names(tuning.tried),
            (std::vector<std::string>{"head_ridge-1", "head_ridge-0.1", "head_ridge-10"}));
  EXPECT_EQ(tuning.best->trial.config.model.head_ridge, 0.1);
  ProtocolRow plain = row_of("split-class", "head-without-pool");
  plain.axes.clear();
  tuning = settle(plain, [](const RunConfig&) { return 0.5; });
  EXPECT_EQ(tuning.best->trial.text(), "as the protocol has it");
  EXPECT_TRUE(differences(tuning.best->trial.config, plain.config).empty());
}

TEST(Tuning, ATrialIsJudgedOnHeldOutExamplesOfASeedThatNoResultHas) {
  const ProtocolRow row = row_of("permuted", "joint");
  const Tuning start = tune(row, [](const Trial&) { return std::nullopt; });
  ASSERT_EQ(start.open.size(), 10U);
  for (const Trial& trial : start.open) {
    EXPECT_GT(trial.run.stream.validation_share, 0);
    EXPECT_TRUE(differences(with_seed(trial.run, kTuningSeed), trial.run).empty());
    EXPECT_EQ(trial.config.stream.validation_share, 0) << "what is chosen learns from all";
  }
}

TEST(Tuning, AShorterStreamIsOfTrialsAlone) {
  ProtocolRow row = row_of("permuted", "joint");
  row.trial_settings = {{"stream", {{"experiences", 2}}}};
  const Tuning tuning = settle(row, [](const RunConfig& c) { return around(c, 1e-3); });
  EXPECT_EQ(tuning.best->trial.run.stream.experiences, 2);
  EXPECT_EQ(tuning.best->trial.config.stream.experiences, 10);
  EXPECT_EQ(tuning.best->trial.text(), "adam 0.001 linear");
}

}  // namespace
}  // namespace perennial::continual
