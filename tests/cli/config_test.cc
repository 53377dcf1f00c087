// SPDX-License-Identifier: Apache-2.0
// Settings by path, from a file, and printed.
#include "learning_fixture.h"

namespace perennial::cli {
namespace {

using ::testing::Not;

TEST_F(LearningTest, PrintedSettingsMakeTheSameRun) {
  const Args settings = {"--dataset",     path("data"),
                         "--stream",      "permuted",
                         "--threads",     "1",
                         "--limit",       "60",
                         "--experiences", "2",
                         "--set",         "model.peer.heads=3",
                         "--set",         "train.analytic_gate.ridge=10"};
  const Finished printed = run(Args{"train", "--store", path("none"), "--print-config"} + settings);
  ASSERT_EQ(printed.code, 0) << printed.err;
  EXPECT_FALSE(fs::exists(path("none"))) << "something was started";
  const json::object config = json::parse(printed.out).as_object();
  EXPECT_EQ(config.at("model").at("peer").at("heads"), 3);
  EXPECT_EQ(config.at("train").at("analytic_gate").at("ridge"), 10);
  EXPECT_EQ(config.at("stream").at("table").at("task"), "classification");
  EXPECT_EQ(config.at("train").at("strategy_options").at("memory"), 500);

  write_file(folder_ / "settings.json", printed.out);
  const json::object whole = succeed(Args{"train", "--store", path("flags")} + settings);
  const json::object again = succeed(
      {"train", "--store", path("file"), "--threads", "1", "--config", path("settings.json")});
  EXPECT_EQ(again.at("state_digest"), whole.at("state_digest"));
  // Flags come on top, and a file may say a few things only.
  write_file(folder_ / "few.json", R"({"model": {"peer": {"heads": 3}, "top_k": 5}})");
  const Finished few = run({"train", "--store", path("none"), "--config", path("few.json"),
                            "--print-config", "--top-k", "6", "--set", "rows=9"});
  ASSERT_EQ(few.code, 0) << few.err;
  const json::value peer = json::parse(few.out).at("model").at("peer");
  EXPECT_EQ(peer.at("heads"), 3);
  EXPECT_EQ(peer.at("top_k"), 6);
  EXPECT_EQ(peer.at("rows"), 9);
}

TEST_F(LearningTest, SettingsThatAreWrongAreNamedBeforeAnythingStarts) {
  write_file(folder_ / "typo.json", R"({"model": {"peer": {"haeds": 3}}})");
  write_file(folder_ / "type.json", R"({"train": {"lr": "fast"}})");
  write_file(folder_ / "text.json", "{");
  const Args train = {"train", "--store", path("none"), "--dataset", path("data")};
  expect_refused(train + Args{"--config", path("typo.json")}, 2,
                 {"typo.json", "'model.peer.haeds'", "did you mean 'model.peer.heads'?"});
  expect_refused(train + Args{"--config", path("type.json")}, 2,
                 {"type.json", "train.lr must be a number"});
  expect_refused(train + Args{"--config", path("text.json")}, 3, {"text.json"});
  expect_refused(train + Args{"--set", "peer.haeds=3"}, 2, {"did you mean 'peer.heads'?"});
  expect_refused(train + Args{"--set", "model.peer.heads=0"}, 2,
                 {"model.peer.heads is 0; allowed: 1 to 1024"});
  expect_refused(train + Args{"--set", "strategy_options.ewc_strength=3"}, 2,
                 {"--ewc-strength needs a strategy that reads it"});
  EXPECT_FALSE(fs::exists(path("none")));
}

TEST_F(LearningTest, StrategiesSayWhatTheyNeedAndRead) {
  const json::object all = succeed({"strategies"});
  const json::array& strategies = all.at("strategies").as_array();
  EXPECT_GT(strategies.size(), 20u);
  for (const json::value& strategy : strategies) {
    EXPECT_FALSE(strategy.at("description").as_string().empty());
  }
  const json::value ewc = succeed({"strategies", "--strategy", "ewc"}).at("strategies").at(0);
  EXPECT_TRUE(ewc.at("needs").as_object().contains("dense_parameters"));
  EXPECT_EQ(ewc.at("composes_as"), "penalty");
  EXPECT_EQ(ewc.at("options").at(0).at("name"), "ewc_strength");
  EXPECT_EQ(ewc.at("options").at(0).at("default").to_number<double>(), 1200);
  const Finished shown = run({"strategies", "--strategy", "packnet"});
  EXPECT_THAT(shown.out, HasSubstr("packnet_prune"));
  EXPECT_THAT(shown.out, HasSubstr("must be told which"));
  EXPECT_THAT(shown.out, Not(HasSubstr("ewc_strength")));
  expect_refused({"strategies", "--strategy", "ewd"}, 2, {"did you mean 'ewc'?"});
}

}  // namespace
}  // namespace perennial::cli
