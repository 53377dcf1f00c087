// SPDX-License-Identifier: Apache-2.0
// The built program running a protocol.
#include <signal.h>

#include <chrono>
#include <thread>

#include "learning_fixture.h"

namespace perennial::cli {
namespace {

// Two strategies, two seeds each, in processes of their own; killed on the way and started again.
TEST_F(LearningTest, BenchGoesOnAfterAKill) {
  const Args bench = {"bench",      "continual",  "--protocol", "rotated",      "--dataset",
                      path("data"), "--seeds",    "2",          "--strategies", "naive,er-500",
                      "--limit",    "200",        "--out",      path("bench"),  "--jobs",
                      "2",          "--no-bounds"};
  const pid_t child = start(bench);
  const fs::path first = folder_ / "bench/runs/naive/1";
  for (int i = 0; i < 2000 && !fs::exists(first / "store"); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ::kill(child, SIGKILL);
  EXPECT_EQ(finish(child).code, 1000 + SIGKILL);

  const json::object result = succeed(bench);
  EXPECT_TRUE(result.at("finished").as_bool());
  const json::array& rows = result.at("rows").as_array();
  ASSERT_EQ(rows.size(), 2u);
  for (const json::value& row : rows) {
    EXPECT_EQ(row.at("seeds"), 2);
    EXPECT_GT(row.at("acc").as_double(), 0.3);
    EXPECT_TRUE(row.at("bwt.gem").is_double());
    EXPECT_GT(row.at("seconds").as_double(), 0);
  }
  for (const char* name : {"results.md", "results.csv", "report.html"}) {
    EXPECT_TRUE(fs::exists(folder_ / "bench" / name)) << name;
  }
  EXPECT_FALSE(fs::exists(first / "store")) << "kept without being asked";

  // Each run is what train makes of its settings.
  const json::object alone = succeed({"train", "--store", path("alone"), "--config",
                                      (first / "config.json").string(), "--threads", "1"});
  const json::value summary = json::parse(read_file(first / "summary.json"));
  EXPECT_EQ(summary.at("state_digest"), alone.at("state_digest"));

  // Nothing is run twice; other settings need another folder.
  EXPECT_EQ(succeed(bench).at("rows"), result.at("rows"));
  expect_refused(bench + Args{"--test-limit", "20"}, 2, {"other settings", "test_limit"});
}

TEST_F(LearningTest, BenchPutsTheBoundsBesideWhatWasAskedFor) {
  const Args bench = {"bench",      "continual", "--protocol", "rotated",      "--dataset",
                      path("data"), "--seeds",   "1",          "--strategies", "er-500",
                      "--limit",    "60",        "--out",      path("bench")};
  const json::object result = succeed(bench);
  std::vector<std::string> names;
  for (const json::value& row : result.at("rows").as_array()) {
    names.emplace_back(row.at("strategy").as_string());
  }
  EXPECT_EQ(names, (std::vector<std::string>{"joint", "naive", "er-500"}));

  // A record that cannot be read is one line that names it, and what to do.
  const fs::path run = folder_ / "bench/runs/naive/1";
  const std::string events = read_file(run / "events.jsonl");
  write_file(run / "events.jsonl", "not this\n" + events);
  expect_refused(bench, 3, {"naive/1/events.jsonl, line 1", "delete"});
  write_file(run / "events.jsonl", events);
  write_file(run / "config.json", "{\"stream\": 1");
  expect_refused(bench, 3, {"naive/1/config.json holds no settings"});
  fs::remove_all(run);
  EXPECT_EQ(succeed(bench).at("rows").as_array().size(), 3U);
}

TEST_F(LearningTest, BenchRefusesWhatItCannotRun) {
  const Args out = {"--out", path("bench")};
  expect_refused({"bench"}, 2, {"bench continual"});
  expect_refused(Args{"bench", "continual", "--protocol", "none"} + out, 2, {"none", "hsu18"});
  expect_refused(
      Args{"bench", "continual", "--protocol", "rotated", "--strategies", "naive,moon"} + out, 2,
      {"moon", "grow_freeze"});
  expect_refused(Args{"bench", "continual", "--protocol", "hsu18", "--scenario", "x"} + out, 2,
                 {"'x'", "domain"});
  expect_refused(
      Args{"bench", "continual", "--protocol", "rotated", "--dataset", path("gone")} + out, 3,
      {"gone"});
  EXPECT_FALSE(fs::exists(folder_ / "bench"));
}

}  // namespace
}  // namespace perennial::cli
