// SPDX-License-Identifier: Apache-2.0
// The first signal asks, the second one ends, and afterwards signals are what they were.
#include "interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>

namespace perennial::cli {
namespace {

TEST(InterruptDeathTest, TheFirstSignalAsksTheWorkToStop) {
  for (const int signal : {SIGINT, SIGTERM}) {
    EXPECT_EXIT(
        {
          const InterruptGuard guard;
          if (InterruptGuard::interrupted()) std::exit(1);
          ::raise(signal);
          std::exit(InterruptGuard::interrupted() ? 7 : 2);
        },
        ::testing::ExitedWithCode(7), "once more to leave at once");
  }
}

TEST(InterruptDeathTest, TheSecondSignalLeavesAtOnce) {
  EXPECT_EXIT(
      {
        const InterruptGuard guard;
        ::raise(SIGINT);
        ::raise(SIGTERM);
        std::exit(1);
      },
      ::testing::ExitedWithCode(130), "once more");
}

TEST(InterruptDeathTest, AfterwardsASignalEndsTheProcess) {
  EXPECT_EXIT(
      {
        { const InterruptGuard guard; }
        ::raise(SIGINT);
        std::exit(1);
      },
      ::testing::KilledBySignal(SIGINT), "");
}

TEST(InterruptDeathTest, ANewGuardStartsUninterrupted) {
  EXPECT_EXIT(
      {
        {
          const InterruptGuard guard;
          ::raise(SIGINT);
        }
        const InterruptGuard guard;
        std::exit(InterruptGuard::interrupted() ? 1 : 7);
      },
      ::testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace perennial::cli
