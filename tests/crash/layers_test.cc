// SPDX-License-Identifier: Apache-2.0
// Runs of a model of several layers and pools are killed with SIGKILL at many points and continued,
// within the smallest memory budget and without one, on one thread and on two: the state digest
// must equal that of a run that nobody disturbed (design invariants 5, 6, 7). What such a run left
// is cut into parts, brought together, continued and verified with the program.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <thread>

#include "perennial/storage/rocksdb_store.h"
#include "resume_testing.h"
#include "storage/store_testing.h"

namespace {

namespace fs = std::filesystem;
namespace storage = perennial::storage;
using namespace perennial::resume_testing;

TEST(LayersTest, KilledRunsEndAsIfNeverInterrupted) {
  const Folder folder;
  const fs::path output = folder.path / "output";
  const auto command = [&](const std::string& store, bool budget, int threads) {
    return std::vector<std::string>{PERENNIAL_LAYERS_RUN, (folder.path / store).string(),
                                    budget ? PERENNIAL_SMALLEST_BUDGET : "0",
                                    std::to_string(threads)};
  };
  const auto begin = std::chrono::steady_clock::now();
  Process undisturbed(command("undisturbed", false, 2), output);
  ASSERT_EQ(undisturbed.wait(), 0) << read(output.string() + ".err");
  const std::chrono::duration<double> whole = std::chrono::steady_clock::now() - begin;
  const std::string expected = read(output);
  ASSERT_EQ(expected.size(), 33u) << expected;

  std::mt19937 random(5);
  std::uniform_real_distribution<double> moment(0, whole.count());
  int kills = 0;
  constexpr int kRuns = 20;
  for (int run = 0; run < kRuns; ++run) {
    SCOPED_TRACE("run " + std::to_string(run));
    const auto once_more = command("killed" + std::to_string(run), run % 2 == 0, 1 + run / 2 % 2);
    Process process(once_more, output);
    std::this_thread::sleep_for(std::chrono::duration<double>(moment(random)));
    kills += process.kill_hard() ? 1 : 0;
    Process last(once_more, output);
    ASSERT_EQ(last.wait(), 0) << read(output.string() + ".err");
    EXPECT_EQ(read(output), expected);
  }
  EXPECT_GT(kills, kRuns / 2);
}

TEST(LayersTest, TheProgramReshardsAndVerifiesAllPools) {
  const Folder folder;
  const fs::path output = folder.path / "output";
  const auto run = [&](const std::vector<std::string>& command) {
    return Process(command, output).wait();
  };
  const auto path = [&](const std::string& name) { return (folder.path / name).string(); };
  const auto perennial = [&](std::vector<std::string> args) {
    args.insert(args.begin(), PERENNIAL_PROGRAM);
    return run(args);
  };
  // Of a run that has ended it says the digest and no more.
  const auto digest = [&](const std::string& store) {
    EXPECT_EQ(run({PERENNIAL_LAYERS_RUN, path(store), "0", "1"}), 0)
        << read(output.string() + ".err");
    return read(output);
  };
  const std::string expected = digest("store");
  for (const int count : {1, 2, 5}) {
    SCOPED_TRACE(count);
    const std::string whole = "whole" + std::to_string(count);
    std::string parts;
    for (int i = 0; i < count; ++i) {
      parts += (i > 0 ? "," : "") + path(std::to_string(count) + "." + std::to_string(i));
    }
    ASSERT_EQ(perennial({"reshard", "--from", path("store"), "--into", parts}), 0)
        << read(output.string() + ".err");
    ASSERT_EQ(perennial({"reshard", "--from", parts, "--into", path(whole)}), 0)
        << read(output.string() + ".err");
    EXPECT_EQ(perennial({"verify", "--store", path(whole)}), 0) << read(output);
    EXPECT_EQ(digest(whole), expected);
  }

  std::string victim;
  storage::Bytes payload;
  {
    const auto opened = storage::open_rocksdb_store(path("whole1"));
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    const storage::PageStore& store = **opened;
    std::vector<storage::PageId> second;
    for (const storage::PageId& page : store.pages()) {
      if (page.pool == 1) second.push_back(page);
    }
    const storage::PageId page = second.at(second.size() / 2);
    victim = storage::to_string(page);
    payload.resize(store.page_shape(page)->payload_bytes());
    ASSERT_TRUE(store.read_page(page, payload).ok());
  }
  storage::testing::flip_a_bit_of(payload, path("whole1"));
  EXPECT_EQ(perennial({"verify", "--store", path("whole1"), "--json"}), 3);
  const boost::json::value found = boost::json::parse(read(output));
  EXPECT_NE(boost::json::serialize(found).find(victim), std::string::npos) << victim << found;
}

}  // namespace
