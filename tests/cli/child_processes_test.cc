// SPDX-License-Identifier: Apache-2.0
// Children end when they are told to, however early.
#include "child_processes.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "interrupt.h"

namespace perennial::cli {
namespace {

// What the children run: this program, with this test alone.
TEST(Child, DISABLED_Sleeps) { std::this_thread::sleep_for(std::chrono::seconds(5)); }

const std::vector<std::string> kSleeps = {"--gtest_also_run_disabled_tests",
                                          "--gtest_filter=Child.DISABLED_Sleeps"};

std::string children_file() {
  return "/proc/self/task/" + std::to_string(::gettid()) + "/children";
}

// A signal between fork and exec must not go to the handler that the child has from its parent.
TEST(ChildProcesses, ASignalBeforeAChildHasBegunEndsIt) {
  if (!std::ifstream(children_file())) GTEST_SKIP() << "this kernel does not list children";
  std::string log = ::testing::TempDir() + "perennial-child-XXXXXX";
  const int file = ::mkstemp(log.data());
  ASSERT_GE(file, 0);
  ::close(file);
  const InterruptGuard guard;  // of this process
  std::set<pid_t> signalled;   // once each
  std::vector<int> codes;
  run_children(
      {{kSleeps, log}, {kSleeps, log}, {kSleeps, log}}, 1,
      [&](std::size_t, int code) { codes.push_back(code); },
      [&](const std::vector<std::size_t>&) {
        // The first call is right after the fork.
        std::ifstream children(children_file());
        for (pid_t child = 0; children >> child;) {
          if (signalled.insert(child).second) ::kill(child, SIGINT);
        }
      },
      [] { return false; });
  ::unlink(log.c_str());
  EXPECT_EQ(signalled.size(), 3U);
  EXPECT_EQ(codes, (std::vector<int>{128 + SIGINT, 128 + SIGINT, 128 + SIGINT}));
}

TEST(ChildProcesses, StopAsksThoseThatRunAndStartsNoOther) {
  std::string log = ::testing::TempDir() + "perennial-child-XXXXXX";
  const int file = ::mkstemp(log.data());
  ASSERT_GE(file, 0);
  ::close(file);
  int ticks = 0;
  std::vector<int> codes;
  run_children(
      {{kSleeps, log}, {kSleeps, log}}, 1, [&](std::size_t, int code) { codes.push_back(code); },
      [&](const std::vector<std::size_t>&) { ++ticks; }, [&] { return ticks > 0; });
  ::unlink(log.c_str());
  EXPECT_EQ(codes, std::vector<int>{128 + SIGINT});
}

}  // namespace
}  // namespace perennial::cli
