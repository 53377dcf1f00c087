// SPDX-License-Identifier: Apache-2.0
// Runs of the program are killed with SIGKILL at many points and continued; accuracy matrix and
// state digest must equal those of a run that nobody disturbed (design invariants 6 and 7).
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "resume_testing.h"

namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using namespace perennial::resume_testing;
using namespace std::chrono_literals;

// The demo's configuration, shortened: fewer examples, so that a run takes seconds.
std::vector<std::string> command(const std::string& strategy, const fs::path& store) {
  std::vector<std::string> args = {PERENNIAL_PROGRAM, "train",   "--store",        store.string(),
                                   "--json",          "--quiet", "--limit",        "1024",
                                   "--test-limit",    "400",     "--commit-every", "3",
                                   "--strategy",      strategy};
  if (strategy == "naive") args.insert(args.end(), {"--rows", "160"});
  return args;
}

class ResumeTest : public testing::TestWithParam<std::string> {};

TEST_P(ResumeTest, KilledRunsEndAsIfNeverInterrupted) {
  const std::string strategy = GetParam();
  const Folder folder;
  const fs::path output = folder.path / "output";
  Process undisturbed(command(strategy, folder.path / "undisturbed"), output);
  ASSERT_EQ(undisturbed.wait(), 0) << read(output.string() + ".err");
  const Outcome expected = outcome(output);

  // Killed a moment after an event was recorded: after "freeze" the test sets are evaluated, after
  // "evaluate" comes the commit, after "commit" the next steps, or growth.
  std::vector<std::string> aims = {"evaluate", "commit"};
  if (strategy == "grow_freeze") aims.insert(aims.end(), {"grow", "freeze"});
  std::mt19937 random(strategy == "naive" ? 11 : 12);
  std::map<std::string, int> killed;
  constexpr int kRuns = 10;
  for (int run = 0; run < kRuns; ++run) {
    SCOPED_TRACE("run " + std::to_string(run));
    const fs::path store = folder.path / ("killed" + std::to_string(run));
    const fs::path events = store / "runs" / strategy / "events.jsonl";
    for (int kills = 0; kills < 2; ++kills) {
      const std::string aim = aims[static_cast<std::size_t>(2 * run + kills) % aims.size()];
      const int before = count_events(events, aim);
      const int more = std::uniform_int_distribution<int>(1, 2)(random);
      const auto delay =
          std::chrono::microseconds(std::uniform_int_distribution<int>(0, 30000)(random));
      Process process(command(strategy, store), output);
      while (process.running() && count_events(events, aim) < before + more) {
        std::this_thread::sleep_for(1ms);
      }
      std::this_thread::sleep_for(delay);
      if (process.kill_hard()) ++killed[aim];
    }
    Process last(command(strategy, store), output);
    ASSERT_EQ(last.wait(), 0) << read(output.string() + ".err");
    EXPECT_EQ(outcome(output), expected);
    // What was repeated is in the record once.
    EXPECT_EQ(
        count_events(events, "evaluate"),
        count_events(folder.path / "undisturbed" / "runs" / strategy / "events.jsonl", "evaluate"));
    fs::remove_all(store);
  }
  int all = 0;
  for (const auto& [aim, count] : killed) {
    all += count;
    RecordProperty("killed_after_" + aim, count);
    std::printf("killed after %s: %d\n", aim.c_str(), count);
  }
  EXPECT_GE(all, kRuns) << "too few runs were killed to say anything";
  for (const std::string& aim : aims) EXPECT_GT(killed[aim], 0) << aim;
}

INSTANTIATE_TEST_SUITE_P(Strategies, ResumeTest, testing::Values("naive", "grow_freeze"),
                         [](const auto& info) { return info.param; });

json::object json_of(const fs::path& output) {
  std::string text = read(output);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return json::parse(text.substr(text.rfind('\n') + 1)).as_object();
}

TEST(UnlearnTest, KilledAtAnyInstantLeavesTheStateBeforeOrAfter) {
  const Folder folder;
  const fs::path output = folder.path / "output", learnt = folder.path / "learnt";
  Process training(command("grow_freeze", learnt), output);
  ASSERT_EQ(training.wait(), 0) << read(output.string() + ".err");
  const std::string before(json_of(output).at("state_digest").as_string());
  const auto unlearn = [](const fs::path& store) {
    return std::vector<std::string>{PERENNIAL_PROGRAM, "unlearn", "--store", store.string(),
                                    "--generation",    "4",       "--json"};
  };
  const auto copy = [&](const std::string& name) {
    const fs::path store = folder.path / name;
    fs::copy(learnt, store, fs::copy_options::recursive);
    return store;
  };
  const fs::path whole = copy("whole");
  const auto start = std::chrono::steady_clock::now();
  Process undisturbed(unlearn(whole), output);
  ASSERT_EQ(undisturbed.wait(), 0) << read(output.string() + ".err");
  const auto takes = std::chrono::steady_clock::now() - start;
  const std::string after(json_of(output).at("state_digest").as_string());
  ASSERT_NE(after, before);

  std::mt19937 random(5);
  std::map<std::string, int> found;
  int killed = 0;
  for (int run = 0; run < 16; ++run) {
    const fs::path store = copy("killed" + std::to_string(run));
    Process process(unlearn(store), output);
    // The commit is near the end.
    std::this_thread::sleep_for(takes * std::uniform_int_distribution<int>(40, 100)(random) / 100);
    killed += process.kill_hard() ? 1 : 0;
    const auto newest = [&] {
      Process log({PERENNIAL_PROGRAM, "log", "--store", store.string(), "--json"}, output);
      EXPECT_EQ(log.wait(), 0) << read(output.string() + ".err");
      return std::string(
          json_of(output).at("commits").as_array().back().at("state_digest").as_string());
    };
    const std::string now = newest();
    EXPECT_TRUE(now == before || now == after) << now;
    ++found[now == before ? "before" : "after"];
    if (now == before) {
      // A commit that was whole but not yet in the store is taken in by the next who writes: then
      // there is nothing left to unlearn.
      Process again(unlearn(store), output);
      const int code = again.wait();
      EXPECT_TRUE(code == 0 ||
                  (code == 2 && read(output.string() + ".err").find("the store has 0 to 3") !=
                                    std::string::npos))
          << read(output.string() + ".err");
      EXPECT_EQ(newest(), after);
    }
    fs::remove_all(store);
  }
  std::printf("killed %d: %d before, %d after\n", killed, found["before"], found["after"]);
  EXPECT_GE(killed, 4) << "too few were killed to say anything";
}

}  // namespace
