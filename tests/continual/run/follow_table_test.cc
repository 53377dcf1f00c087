// SPDX-License-Identifier: Apache-2.0
// Learning a table as it grows: cut anywhere and killed anywhere, it ends in the same state.
#include "perennial/continual/follow_table.h"

#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "continual/data/table_testing.h"
#include "continual/run/run_testing.h"
#include "perennial/core/error.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

const std::vector<std::string> kNames = {"apple", "pear", "fig", "plum"};
constexpr const char* kHeader = "width,height,weight,fruit\n";

class FollowTableTest : public FolderTest {
 protected:
  // 120 rows of each pair of neighbours: two, then a new class each time.
  static std::string part(std::int64_t first) {
    return csv_rows(120, first, 2, kNames, static_cast<std::uint64_t>(first) + 1);
  }
  void append(const std::string& text) const {
    std::ofstream(folder_ / "rows.csv", std::ios::app | std::ios::binary) << text;
  }
  RunConfig config(const std::string& strategy = "er") const {
    RunConfig config = table_config(strategy);
    config.stream.dataset = (folder_ / "rows.csv").string();
    return config;
  }
  std::optional<RunResult> follow(storage::PageStore* store, const RunConfig& config,
                                  std::function<bool()> stop = {}, double idle = 0.05) const {
    FollowSettings settings;
    settings.store = store;
    settings.run.stop_requested = std::move(stop);
    return follow_table(config, {.follow_rows = 120, .follow_idle = idle}, settings);
  }
};

TEST_F(FollowTableTest, EndsInTheSameStateHoweverItWasCut) {
  append(kHeader + part(0) + part(1) + part(2));
  const auto store = storage::make_memory_store();
  const auto whole = follow(store.get(), config());
  ASSERT_TRUE(whole);
  ASSERT_EQ(whole->matrix.experiences(), 3);
  EXPECT_GT(acc(whole->matrix).value(), 0.8);
  EXPECT_EQ(load_learnt(*store, 0).task->names(), kNames);

  // Killed in the middle of any experience.
  for (const int after : {3, 30, 61, 100}) {
    SCOPED_TRACE(::testing::Message() << "cut after " << after);
    const auto cut = storage::make_memory_store();
    int steps = 0;
    FollowSettings settings;
    settings.store = cut.get();
    settings.run.on_progress = [&](const Progress& progress) {
      if (progress.phase == "training" && ++steps == after) throw Error("killed");
    };
    EXPECT_THROW(follow_table(config(), {.follow_rows = 120, .follow_idle = 0.05}, settings),
                 Error);
    const auto resumed = follow(cut.get(), config());
    ASSERT_TRUE(resumed);
    EXPECT_EQ(resumed->state_digest, whole->state_digest);
    EXPECT_EQ(matrix_of(*resumed), matrix_of(*whole));
  }

  // Grown in pieces that end within a row.
  const std::string all = read_text(folder_ / "rows.csv");
  std::filesystem::remove(folder_ / "rows.csv");
  const auto pieces = storage::make_memory_store();
  std::optional<RunResult> last;
  for (std::size_t begin = 0; begin < all.size(); begin += 700) {
    append(all.substr(begin, 700));
    last = follow(pieces.get(), config());
  }
  ASSERT_TRUE(last);
  EXPECT_EQ(last->state_digest, whole->state_digest);

  // Nothing new: the result so far, and no commit.
  const std::uint64_t commits = store->log().size();
  EXPECT_EQ(follow(store.get(), config())->state_digest, whole->state_digest);
  EXPECT_EQ(store->log().size(), commits);
}

TEST_F(FollowTableTest, LearnsWhatAPipeLeavesAtItsEnd) {
  const std::filesystem::path pipe = folder_ / "rows.csv";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer([&] {
    std::ofstream(pipe) << kHeader << part(0) << csv_rows(10, 1, 2, kNames, 9) << "7,8,9,";
  });
  const auto store = storage::make_memory_store();
  RunConfig skipping = config();
  skipping.stream.table.bad_rows = BadRows::skip;
  const auto result = follow(store.get(), skipping, {}, 0);
  writer.join();
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->finished);
  EXPECT_EQ(result->matrix.experiences(), 2);
  EXPECT_EQ(load_learnt(*store, 0).tests[0].size(), 24);
  EXPECT_EQ(load_learnt(*store, 0).tests[1].size(), 2);
}

TEST_F(FollowTableTest, StopsWhileItWaits) {
  append(kHeader + part(0) + part(1).substr(0, 60));
  const auto store = storage::make_memory_store();
  bool learnt = false;
  FollowSettings settings;
  settings.store = store.get();
  settings.on_experience = [&](const RunResult&, const std::string&) { learnt = true; };
  int polls = 0;
  settings.run.stop_requested = [&] { return learnt && ++polls > 5; };
  const auto result = follow_table(config(), {.follow_rows = 120}, settings);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->finished);
  EXPECT_EQ(result->matrix.experiences(), 1);
  EXPECT_FALSE(follow(storage::make_memory_store().get(), config(), [] { return true; }));
}

TEST_F(FollowTableTest, RefusesWhatCannotWork) {
  append(kHeader + part(0));
  const auto store = storage::make_memory_store();
  const auto refuse = [&](auto change) {
    RunConfig bad = config();
    change(bad);
    EXPECT_THROW(follow(store.get(), bad), InvalidOptions);
  };
  refuse([](RunConfig& c) { c.stream.stream = StreamKind::permuted; });
  refuse([](RunConfig& c) { c.stream.limit = 10; });
  refuse([](RunConfig& c) { c.stream.validation_share = 0.1; });
  refuse([](RunConfig& c) { c.train.anytime.anytime_every = 3; });
  refuse([](RunConfig& c) {
    c.model.model = ModelKind::peer;
    c.model.peer.query_norm = QueryNorm::batch;
  });
  EXPECT_EQ(store->head().status().code(), storage::StatusCode::not_found);
  // A file that was learnt whole, a run set up otherwise.
  Trainer(config(), Stream(config().stream), store.get(), {}).run();
  EXPECT_THROW(follow(store.get(), config()), InvalidOptions);
  const auto other = storage::make_memory_store();
  ASSERT_TRUE(follow(other.get(), config()));
  RunConfig wider = config();
  wider.model.hidden = 99;
  EXPECT_THROW(follow(other.get(), wider), InvalidOptions);
}

}  // namespace
}  // namespace perennial::continual
