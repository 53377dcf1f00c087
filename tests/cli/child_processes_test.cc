// SPDX-License-Identifier: Apache-2.0
// Children end when they are told to, however early.
#include "child_processes.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <string>
#include <thread>

#include "interrupt.h"

namespace perennial::cli {
namespace {

// What the children run: this program, with this test alone.
TEST(Child, DISABLED_Sleeps) { std::this_thread::sleep_for(std::chrono::seconds(5)); }

const std::vector<std::string> kSleeps = {"--gtest_also_run_disabled_tests",
                                          "--gtest_filter=Child.DISABLED_Sleeps"};

std::vector<pid_t> children_now() {
  std::ifstream file("/proc/self/task/" + std::to_string(::gettid()) + "/children");
  std::vector<pid_t> children;
  for (pid_t child = 0; file >> child;) children.push_back(child);
  return children;
}

// A signal between fork and exec must not go to the handler that the child has from its parent.
TEST(ChildProcesses, ASignalBeforeAChildHasBegunEndsIt) {
  std::string log = testing::TempDir() + "perennial-child-XXXXXX";
  const int file = ::mkstemp(log.data());
  ASSERT_GE(file, 0);
  ::close(file);
  const InterruptGuard guard;  // of this process
  int signalled = 0;
  std::vector<int> codes;
  run_children(
      {{kSleeps, log}, {kSleeps, log}, {kSleeps, log}}, 1,
      [&](std::size_t, int code) { codes.push_back(code); },
      [&](const std::vector<std::size_t>& running) {
        if (running.empty()) return;
        // Right after the fork, as tick() follows it.
        for (const pid_t child : children_now()) {
          signalled += ::kill(child, SIGINT) == 0 ? 1 : 0;
        }
      },
      [] { return false; });
  ::unlink(log.c_str());
  ASSERT_GE(signalled, 3) << "no /proc/self/task/*/children here";
  EXPECT_EQ(codes, (std::vector<int>{128 + SIGINT, 128 + SIGINT, 128 + SIGINT}));
}

TEST(ChildProcesses, StopAsksThoseThatRunAndStartsNoOther) {
  std::string log = testing::TempDir() + "perennial-child-XXXXXX";
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
