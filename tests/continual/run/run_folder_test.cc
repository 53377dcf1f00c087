// SPDX-License-Identifier: Apache-2.0
// Run folders read back: made-up ones, those of real runs, damaged ones, and the command that
// repeats a run.
#include "perennial/continual/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <limits>

#include "continual/metrics/tensorboard_reader.h"
#include "continual/run/run_testing.h"
#include "continual/run/trainer_testing.h"
#include "perennial/continual/report.h"
#include "perennial/continual/tensorboard.h"
#include "perennial/core/error.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;

class RunFolderTest : public FolderTest {
 protected:
  std::string error_of(const std::string& events) {
    write_text(folder_ / "events.jsonl", events);
    try {
      read_run_folder(folder_);
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(RunFolderTest, TellsWhatWasRecorded) {
  const MadeUpRun made{.strategy = "replay", .experiences = 3};
  made.write(folder_);
  const RunFolder run = read_run_folder(folder_);
  EXPECT_EQ(run.strategy(), "replay");
  EXPECT_EQ(run.setting("train", "train_seed"), "1");
  EXPECT_EQ(run.setting("train", "nothing"), "");
  EXPECT_EQ(run.matrix.experiences(), 3);
  EXPECT_EQ(run.matrix.at(2, 0), made.accuracy(2, 1));
  EXPECT_EQ(run.anytime.points.size(), 24U);
  EXPECT_EQ(run.anytime.options.anytime_examples, 100);
  ASSERT_EQ(run.experiences.size(), 3U);
  EXPECT_EQ(run.experiences[1].parameters, 2'400'000);
  EXPECT_EQ(run.experiences[1].store_bytes, 24'000'000);
  EXPECT_EQ(run.experiences[1].replay_bytes, 1'568'000);
  ASSERT_EQ(run.routing.size(), 3U);
  EXPECT_EQ(run.routing[2].drift.size(), 3U);
  EXPECT_TRUE(run.finished);
  EXPECT_EQ(run.seconds, 20.5);
  const json::object metrics = run.metrics();
  for (const char* name : {"acc", "bwt.gem", "fwt.gem", "anytime", "lca", "min_acc", "wc_acc"}) {
    EXPECT_TRUE(metrics.at(name).is_double()) << name;
  }
}

TEST_F(RunFolderTest, TellsTheErrorsOfTargets) {
  const MadeUpRun made{.experiences = 3, .targets = {"price", "rent"}};
  made.write(folder_);
  RunFolder run = read_run_folder(folder_);
  EXPECT_EQ(run.task, TaskKind::regression);
  ASSERT_EQ(run.errors.size(), 2U);
  EXPECT_EQ(run.errors[1].target, "rent");
  ASSERT_EQ(run.errors[0].rows.size(), 4U);
  EXPECT_EQ(run.errors[0].rows.at(2)[0], made.error(2, 1));
  // The last row that says so counts, and it may have more test sets; null is no number.
  write_text(folder_ / "events.jsonl",
             "{\"event\":\"evaluate\",\"row\":0,\"steps\":0,\"accuracy\":[0.5],"
             "\"rmse\":{\"price\":[7]}}\n"
             "{\"event\":\"evaluate\",\"row\":0,\"steps\":0,\"accuracy\":[0.5,0.1],"
             "\"rmse\":{\"price\":[7,null]}}\n");
  run = read_run_folder(folder_);
  ASSERT_EQ(run.errors.size(), 1U);
  EXPECT_EQ(run.errors[0].rows.at(0),
            (std::vector<double>{7, std::numeric_limits<double>::infinity()}));
}

TEST_F(RunFolderTest, ARunThatGoesOnHasWhatItRecordedSoFar) {
  MadeUpRun{.ends = false}.write(folder_);
  const std::string events = read_text(folder_ / "events.jsonl");
  // Cut short in the middle of its last line; a summary of an earlier stop lies beside it.
  write_text(folder_ / "events.jsonl", events.substr(0, events.size() - 5));
  write_text(folder_ / "summary.json", R"({"matrix":[[0.5],[0.5]],"finished":false,"steps":1})");
  const RunFolder run = read_run_folder(folder_);
  EXPECT_FALSE(run.finished);
  EXPECT_EQ(run.matrix.experiences(), 5);
  EXPECT_EQ(run.experiences.back().store_bytes, std::nullopt);
}

TEST_F(RunFolderTest, NamesWhatIsDamaged) {
  EXPECT_THROW(read_run_folder(folder_ / "none"), DataError);
  EXPECT_THAT(error_of("{\"event\":\"start\"}\nnot json\n{}\n"), HasSubstr("line 2"));
  EXPECT_THAT(error_of("[]\n"), HasSubstr("line 1"));
  EXPECT_THAT(error_of("{\"event\":\"start\"}\n"), HasSubstr("no score"));
  EXPECT_THAT(error_of("{\"event\":\"evaluate\",\"row\":0,\"accuracy\":[\"x\"]}\n"),
              HasSubstr("accuracy"));
  EXPECT_NE(error_of("{\"event\":\"evaluate\",\"row\":7,\"accuracy\":[0.5]}\n"), "");
  EXPECT_NE(error_of("{\"event\":\"evaluate\",\"row\":0,\"accuracy\":[2]}\n"), "");
  const std::string row = "{\"event\":\"evaluate\",\"row\":0,\"accuracy\":[0.5]}\n";
  EXPECT_EQ(error_of(row), "");
  EXPECT_NE(error_of(row + "{\"event\":\"anytime\",\"experience\":1,\"accuracy\":[0.5,0.5]}\n"),
            "");
  EXPECT_NE(error_of(row + "{\"event\":\"anytime\",\"experience\":0,\"accuracy\":[0.5]}\n"), "");
}

RunResult run_into(const std::filesystem::path& folder, const RunConfig& config,
                   storage::PageStore* store, std::function<bool()> stop = {}) {
  RunSettings settings;
  settings.run_folder = folder;
  settings.stop_requested = std::move(stop);
  return Trainer(config, make_stream(config), store, settings).run();
}

const Case kAnytime{"anytime", [](RunConfig& c) {
                      c.train.anytime = {.anytime_every = 3, .anytime_examples = 10};
                    }};

TEST_F(RunFolderTest, OfARealRunHasItsResult) {
  const RunConfig config = small_config(kAnytime);
  const auto store = storage::make_memory_store();
  const RunResult result = run_into(folder_, config, store.get());
  const RunFolder run = read_run_folder(folder_);
  EXPECT_EQ(json::serialize(run.matrix.to_json()), matrix_of(result));
  EXPECT_EQ(run.anytime.points, result.anytime.points);
  EXPECT_EQ(run.state_digest, result.state_digest);
  EXPECT_EQ(json::serialize(run.config), json::serialize(config.to_json()));
  EXPECT_TRUE(run.finished);
  ASSERT_EQ(run.experiences.size(), 3U);
  // Three generations of 6 x 6 experts of 12 + 4 weights, and their routers.
  EXPECT_EQ(run.experiences[2].experts, 3 * 36);
  EXPECT_GT(run.experiences[2].parameters, 3 * 36 * 16);
  EXPECT_GT(run.experiences[0].seconds, 0);
  EXPECT_GT(run.experiences[0].examples_per_second, 0);
  EXPECT_GT(run.experiences[2].store_bytes, run.experiences[0].store_bytes);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "report.html"));

  // metrics.csv has a line a number.
  const std::string csv = read_text(folder_ / "metrics.csv");
  EXPECT_THAT(csv, HasSubstr("metric,after_experience,experience,value,steps\naccuracy,0,1,"));
  EXPECT_THAT(csv, HasSubstr("\nanytime.accuracy,0,1,"));
  EXPECT_THAT(csv, HasSubstr("\nacc,3,,"));
  EXPECT_THAT(csv, HasSubstr("\nwc_acc,3,,"));
}

// What TensorBoard would show, without the times.
std::vector<std::string> scalars_in(const std::filesystem::path& folder) {
  std::vector<std::string> all;
  for (const auto& event : continual::testing::read_events(read_text(folder / kTensorboardFile))) {
    if (event.tag.find("second") != std::string::npos) continue;    // of the clock
    if (event.tag.find("hit_rate") != std::string::npos) continue;  // of the process
    all.push_back(event.tag + "@" + std::to_string(event.step) + "=" + std::to_string(event.value));
  }
  return all;
}

TEST_F(RunFolderTest, ResumedHasTheScalarsAndFiguresOfOneNeverStopped) {
  const RunConfig config = small_config(kAnytime);
  const auto whole_store = storage::make_memory_store(), store = storage::make_memory_store();
  run_into(folder_ / "whole", config, whole_store.get());
  learn_in_parts(
      [&](const auto& stop) { return run_into(folder_ / "stopped", config, store.get(), stop); },
      [](int) { return 3; }, 3);
  const auto whole = scalars_in(folder_ / "whole");
  EXPECT_GT(whole.size(), 20U);
  EXPECT_EQ(scalars_in(folder_ / "stopped"), whole);
  EXPECT_EQ(read_text(folder_ / "stopped/metrics.csv"), read_text(folder_ / "whole/metrics.csv"));
  const RunFolder run = read_run_folder(folder_ / "stopped");
  ASSERT_EQ(run.experiences.size(), 3U);
  for (const ExperienceFigures& figures : run.experiences) {
    EXPECT_GT(figures.seconds, 0);
    EXPECT_TRUE(figures.store_bytes);
  }
}

// A store goes back and forth between states of several runs; the record is that of the run that it
// is in, though each has cut the file and written lines of other lengths.
TEST_F(RunFolderTest, FollowsAChainOfRestores) {
  const RunConfig config = small_config(kAnytime);
  const auto store = storage::make_memory_store();
  learn_in_parts([&](const auto& stop) { return run_into(folder_, config, store.get(), stop); },
                 [](int) { return 2; }, 3);
  const std::vector<std::string> scalars = scalars_in(folder_);
  const RunFolder first = read_run_folder(folder_);
  const std::string metrics = read_text(folder_ / "metrics.csv");
  for (const std::string name :
       {"experience-1", "experience-2", "experience-3", "experience-1", "experience-2-2",
        "experience-3-3", "experience-2", "experience-3"}) {
    SCOPED_TRACE(name);
    const std::uint64_t commit = value_or_throw(store->resolve(name));
    std::string note;
    for (const storage::CommitInfo& info : store->log()) {
      if (info.commit == commit) note = info.note;
    }
    ASSERT_TRUE(store->restore({.commit = commit, .note = note}).ok());
    EXPECT_NO_THROW(write_run_report(folder_));
    EXPECT_TRUE(run_into(folder_, config, store.get()).finished);
    EXPECT_NO_THROW(write_run_report(folder_));
    const RunFolder run = read_run_folder(folder_);
    EXPECT_TRUE(run.finished);
    EXPECT_EQ(run.matrix.to_json(), first.matrix.to_json());
    EXPECT_EQ(run.anytime.points, first.anytime.points);
    EXPECT_EQ(run.experiences.size(), 3U);
    EXPECT_EQ(run.state_digest, first.state_digest);
    EXPECT_EQ(scalars_in(folder_), scalars);
    EXPECT_EQ(read_text(folder_ / "metrics.csv"), metrics);
  }
}

TEST_F(RunFolderTest, TheCommandHasWhatIsNotAtItsDefault) {
  RunFolder run;
  EXPECT_EQ(reproducing_command(run), "perennial train --store DIR");
  RunConfig config;
  config.stream.dataset = "my data's/folder";
  config.train.strategy = "naive";
  config.train.lr = 0.1 + 0.2;
  config.train.epochs = 3;
  config.model.peer.glu = true;
  run.config = config.to_json();
  run.machine = {{"threads", 2}};
  EXPECT_EQ(reproducing_command(run),
            "perennial train --store DIR --threads 2 --stream permuted --dataset 'my "
            "data'\\''s/folder' --glu --strategy naive --epochs 3 --lr 0.30000000000000004");
}

}  // namespace
}  // namespace perennial::continual
