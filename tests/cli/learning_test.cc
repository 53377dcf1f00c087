// SPDX-License-Identifier: Apache-2.0
// The built program learning a small data set: train, page, stop and resume, each compared bit for
// bit with what it must equal.
#include <signal.h>

#include <array>
#include <chrono>
#include <thread>

#include "learning_fixture.h"

namespace perennial::cli {
namespace {

TEST_F(LearningTest, GrowFreezeLearnsAndReportsWhatItLearnt) {
  const json::object result = succeed(train("store"));
  for (const char* field : {"acc", "bwt.gem", "fwt.gem", "forgetting.chaudhry", "gate_accuracy"}) {
    ASSERT_TRUE(result.contains(field)) << field;
    EXPECT_TRUE(result.at(field).is_double()) << field;
  }
  expect_matrix(result, 2);
  EXPECT_GT(result.at("acc").as_double(), 0.8);
  EXPECT_GT(result.at("gate_accuracy").as_double(), 0.95);
  EXPECT_EQ(result.at("finished"), true);
  EXPECT_EQ(result.at("steps"), 48);  // 2 experiences x 2 passes x 600 / 50
  EXPECT_EQ(result.at("state_digest").as_string().size(), 32U);
  EXPECT_EQ(std::string(result.at("store").as_string()), path("store"));
  const fs::path records = std::string(result.at("run_folder").as_string());
  for (const char* file : {"events.jsonl", "metrics.csv", "summary.json"}) {
    EXPECT_TRUE(fs::exists(records / file)) << file;
  }

  // The same command on another store, and on two of the same, ends in the same state.
  const json::object twin = succeed(train("twin"));
  EXPECT_EQ(twin.at("state_digest"), result.at("state_digest"));
  EXPECT_EQ(twin.at("matrix"), result.at("matrix"));
  EXPECT_NE(succeed(train("other") + Args{"--train-seed", "2"}).at("state_digest"),
            result.at("state_digest"));

  // eval reads back what the run measured last.
  const json::object evaluated = succeed({"eval", "--store", path("store")});
  EXPECT_EQ(evaluated.at("accuracy"), result.at("matrix").as_array().back());
  EXPECT_EQ(evaluated.at("gate_accuracy"), result.at("gate_accuracy"));

  // A finished run has nothing left to do.
  const json::value before = commits("store");
  const auto files = content("store");
  const json::object again = succeed({"train", "--store", path("store"), "--threads", "1"});
  EXPECT_EQ(again.at("matrix"), result.at("matrix"));
  EXPECT_EQ(again.at("state_digest"), result.at("state_digest"));
  EXPECT_EQ(commits("store"), before);
  EXPECT_EQ(content("store"), files);

  // Text for people says the same, and --quiet silences the progress alone.
  const Finished people = run({"train", "--store", path("store"), "--threads", "1", "--quiet"});
  EXPECT_EQ(people.code, 0);
  EXPECT_EQ(people.err, "");
  EXPECT_THAT(people.out, HasSubstr(std::string(result.at("state_digest").as_string())));
  EXPECT_THAT(people.out, HasSubstr("experience 2"));
}

TEST_F(LearningTest, NaiveAndJointLearnWithEitherModel) {
  for (const std::string strategy : {"naive", "joint"}) {
    for (const std::string model : {"mlp", "peer"}) {
      SCOPED_TRACE(strategy + " " + model);
      const std::string store = strategy + "-" + model;
      const json::object result = succeed(train(store, strategy, model));
      expect_matrix(result, 2, strategy == "joint");
      EXPECT_GT(result.at("acc").as_double(), 0.5);
      EXPECT_EQ(result.at("gate_accuracy"), nullptr);
      EXPECT_EQ(result.contains("pager"), model == "peer");
      // Joint training never forgets: it has no experience before the last.
      EXPECT_EQ(result.at("bwt.gem").is_null(), strategy == "joint");
      const json::object evaluated = succeed({"eval", "--store", path(store)});
      EXPECT_EQ(evaluated.at("accuracy"), result.at("matrix").as_array().back());
      if (strategy == "joint") continue;
      const json::object twin = succeed(train(store + "-twin", strategy, model));
      EXPECT_EQ(twin.at("state_digest"), result.at("state_digest"));
    }
  }
}

TEST_F(LearningTest, TheOracleGateIsEvaluatedAsItWasTrained) {
  const json::object result = succeed(train("store", "grow_freeze", "peer", "oracle"));
  EXPECT_GT(result.at("acc").as_double(), 0.8);
  const json::object evaluated = succeed({"eval", "--store", path("store")});
  EXPECT_EQ(evaluated.at("accuracy"), result.at("matrix").as_array().back());
  EXPECT_EQ(evaluated.at("oracle"), true);
}

TEST_F(LearningTest, TheSmallestBudgetChangesNoBit) {
  const Args shape = {"--rows", "32",      "--cols", "32",           "--heads",
                      "1",      "--top-k", "2",      "--page-bytes", "2048"};
  Args small = train("small");
  for (std::size_t i = 0; i + 1 < small.size();) {  // rows and cols are given by `shape`
    if (small[i] == "--rows" || small[i] == "--cols") {
      small.erase(small.begin() + static_cast<std::ptrdiff_t>(i),
                  small.begin() + static_cast<std::ptrdiff_t>(i) + 2);
    } else {
      ++i;
    }
  }
  small = small + shape;
  Args whole = small;
  whole[2] = path("whole");
  const json::object free = succeed(whole);

  // The refusals say what is needed, first without optimizer state perhaps, and make no store.
  std::int64_t budget = 1;
  for (int tries = 0; tries < 3; ++tries) {
    const Finished refused = run(small + Args{"--budget", std::to_string(budget)});
    if (refused.code == 0) {
      fs::remove_all(folder_ / "small");
      break;
    }
    ASSERT_EQ(refused.code, 2) << refused.err;
    ASSERT_FALSE(fs::exists(folder_ / "small"));
    const std::string figure = "at least ";
    const std::size_t at = refused.err.find(figure);
    ASSERT_NE(at, std::string::npos) << refused.err;
    const std::int64_t needed = std::stoll(refused.err.substr(at + figure.size()));
    ASSERT_GT(needed, budget);
    budget = needed;
  }
  ASSERT_EQ(run(small + Args{"--budget", std::to_string(budget - 1)}).code, 2);
  const json::object paged = succeed(small + Args{"--budget", std::to_string(budget)});
  EXPECT_EQ(paged.at("state_digest"), free.at("state_digest"));
  EXPECT_EQ(paged.at("matrix"), free.at("matrix"));
  const json::object& pager = paged.at("pager").as_object();
  for (const char* count : {"evicted", "spilled", "unspilled"}) {
    EXPECT_GT(json::value_to<std::int64_t>(pager.at(count)), 0) << count;
    EXPECT_EQ(json::value_to<std::int64_t>(free.at("pager").at(count)), 0) << count;
  }
  EXPECT_LE(json::value_to<std::int64_t>(pager.at("peak_bytes")), budget);
  const json::object inspected = succeed({"inspect", "--store", path("small")});
  EXPECT_GE(json::value_to<std::int64_t>(inspected.at("pages")) *
                json::value_to<std::int64_t>(inspected.at("page_bytes")),
            8 * budget);
  // Of the last commit: pages may still be spilled ahead after it.
  for (const char* count : {"evicted", "spilled"}) {
    const auto committed = json::value_to<std::int64_t>(inspected.at("pager").at(count));
    const auto last = json::value_to<std::int64_t>(pager.at(count));
    EXPECT_LE(committed, last) << count;
    EXPECT_GT(committed, last * 9 / 10) << count;
  }
  EXPECT_EQ(succeed({"eval", "--store", path("small"), "--budget", std::to_string(budget)})
                .at("accuracy"),
            free.at("matrix").as_array().back());
}

TEST_F(LearningTest, StoppedRunsResumeToTheSameState) {
  for (const std::string strategy : {"grow_freeze", "naive"}) {
    SCOPED_TRACE(strategy);
    const Args passes = {"--page-bytes", "4096"};
    const json::object whole = succeed(train(strategy + "-whole", strategy) + passes);
    const std::string store = strategy + "-stopped";
    const std::array<int, 4> signals = {SIGINT, SIGKILL, SIGTERM, SIGINT};
    int stopped = 0;
    for (std::size_t i = 0; i < signals.size(); ++i) {
      const fs::path events = folder_ / store / "runs" / strategy / "events.jsonl";
      const auto before = fs::exists(events) ? fs::file_size(events) : 0;
      const pid_t child = start(train(store, strategy) + passes + Args{"--json"});
      // Once it has begun to train: it recorded a commit or the resumption.
      for (int wait = 0; wait < 60'000; ++wait) {
        if (fs::exists(events) && fs::file_size(events) > before) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      ::kill(child, signals[i]);
      const Finished finished = finish(child);
      if (signals[i] == SIGKILL) {
        EXPECT_TRUE(finished.code == 1000 + SIGKILL || finished.code == 0);
        continue;
      }
      EXPECT_EQ(finished.code, 0) << finished.err;
      if (finished.object().at("finished") == true) continue;
      ++stopped;
      EXPECT_THAT(finished.err, HasSubstr("go on with: perennial train --store " + path(store)));
      const json::array log = commits(store).as_array();
      EXPECT_EQ(finished.object().at("state_digest"), log.back().at("state_digest"));
    }
    EXPECT_GT(stopped, 0);
    const json::object resumed = succeed({"train", "--store", path(store), "--threads", "1"});
    EXPECT_EQ(resumed.at("finished"), true);
    EXPECT_EQ(resumed.at("state_digest"), whole.at("state_digest"));
    EXPECT_EQ(resumed.at("matrix"), whole.at("matrix"));
    EXPECT_EQ(resumed.at("steps"), whole.at("steps"));
    EXPECT_EQ(run({"verify", "--store", path(store)}).code, 0);
  }
}

}  // namespace
}  // namespace perennial::cli
