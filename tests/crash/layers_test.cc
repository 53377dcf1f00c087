// SPDX-License-Identifier: Apache-2.0
// Runs of a model of several layers and pools are killed with SIGKILL at many points and continued,
// within the smallest memory budget and without one, on one thread and on two: the state digest
// must equal that of a run that nobody disturbed (design invariants 5, 6, 7).
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <thread>

#include "resume_testing.h"

namespace {

namespace fs = std::filesystem;
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

}  // namespace
