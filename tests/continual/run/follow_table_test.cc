// SPDX-License-Identifier: Apache-2.0
// Learning a table as it grows: cut anywhere and killed anywhere, it ends in the same state.
#include "perennial/continual/follow_table.h"

#include <sys/stat.h>

#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "continual/data/table_testing.h"
#include "continual/run/run_testing.h"
#include "perennial/core/error.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

const std::vector<std::string> kNames = {"apple", "pear", "fig", "plum"};
constexpr const char* kHeader = "width,height,weight,fruit\n";
constexpr const char* kHousesHeader = "rent,size,rooms,price\n";

class FollowTableTest : public FolderTest {
 protected:
  // 120 rows of each pair of neighbours: two, then a new class each time.
  static std::string part(std::int64_t first) {
    return csv_rows(120, first, 2, kNames, static_cast<std::uint64_t>(first) + 1);
  }
  void append(const std::string& text, const char* name = "rows.csv") const {
    std::ofstream(folder_ / name, std::ios::app | std::ios::binary) << text;
  }
  // 120 rows of numbers, and before the last one two that are bad (CSV).
  static std::string houses(std::int64_t year, bool jsonl = false) {
    kernels::RandomStream random(static_cast<std::uint64_t>(year) + 1);
    std::ostringstream text;
    for (int i = 0; i < 120; ++i) {
      const std::int64_t size = 20 + static_cast<std::int64_t>(random.below(100)),
                         rooms = static_cast<std::int64_t>(random.below(6));
      const std::int64_t price = 1000 * (size + 10 * rooms) * (10 + year), rent = size - rooms;
      if (jsonl) {
        text << R"({"size":)" << size << R"(,"rent":)" << rent << R"(,"price":)" << price
             << R"(,"rooms":)" << rooms << "}\n";
      } else {
        if (i == 119) text << "7,8,9,\n7,8,many,9\n";
        text << rent << ',' << size << ',' << rooms << ',' << price << '\n';
      }
    }
    return text.str();
  }
  // Trained on with a memory, or solved for.
  RunConfig houses_config(bool solved) const {
    RunConfig config = this->config(solved ? "naive" : "er");
    config.stream.table.task = TaskKind::regression;
    config.stream.table.target_column = "price,rent";
    config.stream.table.bad_rows = BadRows::skip;
    if (solved) {
      config.train.epochs = 1;
      config.model.model = ModelKind::peer;
      config.model.head = HeadKind::analytic;
      config.model.head_width = 48;
    }
    return config;
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

  // What following rows.csv into `store` in one go gives, also where it was killed after so many
  // steps, and where the file grew in pieces that end within a row.
  RunResult expect_same_however_cut(const RunConfig& config, storage::PageStore* store,
                                    const std::vector<int>& kills) const {
    std::optional<RunResult> whole = follow(store, config);
    if (!whole) throw Error("nothing was learnt");
    for (const int after : kills) {
      SCOPED_TRACE(::testing::Message() << "killed after " << after);
      const auto cut = storage::make_memory_store();
      int steps = 0;
      FollowSettings settings;
      settings.store = cut.get();
      settings.run.on_progress = [&](const Progress& progress) {
        if (progress.phase == "training" && ++steps == after) throw Error("killed");
      };
      EXPECT_THROW(follow_table(config, {.follow_rows = 120, .follow_idle = 0.05}, settings),
                   Error);
      const auto resumed = follow(cut.get(), config);
      if (!resumed) throw Error("nothing was learnt after a kill");
      EXPECT_EQ(resumed->state_digest, whole->state_digest);
      EXPECT_EQ(matrix_of(*resumed), matrix_of(*whole));
      EXPECT_EQ(resumed->errors, whole->errors);
    }
    const std::string all = read_text(folder_ / "rows.csv");
    const auto grown = storage::make_memory_store();
    std::optional<RunResult> last;
    std::filesystem::resize_file(folder_ / "rows.csv", 0);
    for (std::size_t begin = 0; begin < all.size(); begin += 700) {
      append(all.substr(begin, 700));
      last = follow(grown.get(), config);
    }
    if (!last) throw Error("nothing was learnt of a file that grew");
    EXPECT_EQ(last->state_digest, whole->state_digest);
    return *std::move(whole);
  }
};

TEST_F(FollowTableTest, EndsInTheSameStateHoweverItWasCut) {
  append(kHeader + part(0) + part(1) + part(2));
  const auto store = storage::make_memory_store();
  const RunResult whole = expect_same_however_cut(config(), store.get(), {3, 30, 61, 100});
  ASSERT_EQ(whole.matrix.experiences(), 3);
  EXPECT_GT(acc(whole.matrix).value(), 0.8);
  EXPECT_EQ(load_learnt(*store, 0).task->names(), kNames);

  // Nothing new: the result so far, and no commit.
  const std::uint64_t commits = store->log().size();
  EXPECT_EQ(follow(store.get(), config())->state_digest, whole.state_digest);
  EXPECT_EQ(store->log().size(), commits);
}

// 120 good rows of each year, whose prices are higher; some rows between them are bad.
TEST_F(FollowTableTest, LearnsNumbers) {
  append(kHousesHeader + houses(0) + houses(1) + houses(2));
  for (const bool solved : {false, true}) {
    SCOPED_TRACE(solved ? "solved" : "trained");
    const RunConfig config = houses_config(solved);
    const auto store = storage::make_memory_store();
    const RunResult whole = expect_same_however_cut(
        config, store.get(), solved ? std::vector{2, 8, 15} : std::vector{3, 30, 61, 100});
    ASSERT_EQ(whole.matrix.experiences(), 3);
    EXPECT_GT(whole.matrix.at(1, 0), 0.9);
    EXPECT_GT(whole.matrix.at(3, 2), 0.8);
    EXPECT_EQ(whole.targets, (std::vector<std::string>{"price", "rent"}));
    ASSERT_EQ(whole.errors.size(), 3U);
    EXPECT_EQ(whole.errors[2].size(), 2U);

    // The targets' scale is that of the first rows, whatever comes later.
    const auto first = storage::make_memory_store();
    bool learnt_one = false;
    FollowSettings settings;
    settings.store = first.get();
    settings.on_experience = [&](const RunResult&, const std::string& bad_rows) {
      learnt_one = true;
      EXPECT_NE(bad_rows.find("2 of 122 rows skipped"), std::string::npos) << bad_rows;
    };
    settings.run.stop_requested = [&] { return learnt_one; };
    const auto one = follow_table(config, {.follow_rows = 120}, settings);
    ASSERT_TRUE(one);
    EXPECT_EQ(one->matrix.at(1, 0), whole.matrix.at(1, 0));
    const LearntModel learnt = load_learnt(*store, 0), after_one = load_learnt(*first, 0);
    EXPECT_EQ(after_one.tests.size(), 1U);
    EXPECT_EQ(after_one.targets.means, learnt.targets.means);
    EXPECT_EQ(after_one.targets.deviations, learnt.targets.deviations);

    // Other targets are refused, and the store stays as it is.
    RunConfig other = config;
    other.stream.table.target_column = "price";
    EXPECT_THROW(follow(first.get(), other), DataError);
    EXPECT_EQ(load_learnt(*first, 0).tests.size(), 1U);
    EXPECT_EQ(follow(first.get(), config)->state_digest, whole.state_digest);
  }
}

TEST_F(FollowTableTest, LearnsNumbersOfJsonlAsThoseOfCsv) {
  append(kHousesHeader + houses(0) + houses(1));
  append(houses(0, true) + houses(1, true), "rows.jsonl");
  RunConfig config = houses_config(true);
  const auto csv = storage::make_memory_store(), jsonl = storage::make_memory_store();
  const auto of_csv = follow(csv.get(), config);
  config.stream.dataset = (folder_ / "rows.jsonl").string();
  const auto of_jsonl = follow(jsonl.get(), config);
  ASSERT_TRUE(of_csv && of_jsonl);
  EXPECT_EQ(of_jsonl->matrix.experiences(), 2);
  EXPECT_EQ(matrix_of(*of_jsonl), matrix_of(*of_csv));
  EXPECT_EQ(of_jsonl->errors, of_csv->errors);
}

// The end of a pipe is an experience of as few rows as two can be split off from.
TEST_F(FollowTableTest, LearnsTheLastNumbersOfAPipe) {
  const std::filesystem::path pipe = folder_ / "rows.csv";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer(
      [&] { std::ofstream(pipe) << kHousesHeader << houses(0) << "1,2,3,4\n5,6,7,8"; });
  const auto store = storage::make_memory_store();
  const auto result = follow(store.get(), houses_config(true), {}, 0);
  writer.join();
  ASSERT_TRUE(result);
  ASSERT_EQ(result->matrix.experiences(), 2);
  EXPECT_EQ(load_learnt(*store, 0).tests[1].size(), 1);
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
