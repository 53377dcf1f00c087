// SPDX-License-Identifier: Apache-2.0
// Which threads short work gets, on machines that are made up: quiet, busy, and changing.
#include "nn/team_choice.h"

#include <gtest/gtest.h>

#include <functional>

#include "perennial/kernels/philox.h"

namespace perennial {
namespace {

constexpr double kTeam = 100e-6, kAlone = 200e-6;

// Of calls that take what the machine says: the share that had all threads.
double share_with_team(TeamChoice& choice, int calls, const std::function<double(bool)>& machine) {
  int with_team = 0;
  for (int i = 0; i < calls; ++i) {
    const bool team = choice.team();
    with_team += team ? 1 : 0;
    choice.took(machine(team));
  }
  return static_cast<double>(with_team) / calls;
}

double quiet(bool team) { return team ? kTeam : kAlone; }

// One call in eight waits 4 ms for a thread that does not run.
std::function<double(bool)> busy() {
  return [random = kernels::RandomStream(1)](bool team) mutable {
    if (!team) return kAlone;
    return random.below(8) == 0 ? 4e-3 : kTeam;
  };
}

TEST(TeamChoice, TakesAllThreadsWhereTheyRun) {
  TeamChoice choice;
  EXPECT_TRUE(choice.team());
  EXPECT_GT(share_with_team(choice, 20'000, quiet), 0.98);
}

TEST(TeamChoice, TakesOneThreadWhereOthersDoNotRun) {
  TeamChoice choice;
  EXPECT_LT(share_with_team(choice, 20'000, busy()), 0.05);
}

TEST(TeamChoice, FollowsTheMachine) {
  TeamChoice choice;
  share_with_team(choice, 20'000, quiet);
  share_with_team(choice, 5'000, busy());
  EXPECT_LT(share_with_team(choice, 20'000, busy()), 0.05);
  share_with_team(choice, 5'000, quiet);
  EXPECT_GT(share_with_team(choice, 20'000, quiet), 0.95);
}

// A hiccup of a quiet machine costs some hundred calls, no more.
TEST(TeamChoice, ComesBackAfterAHiccup) {
  TeamChoice choice;
  share_with_team(choice, 20'000, quiet);
  choice.took(20e-3);
  EXPECT_GT(share_with_team(choice, 50'000, quiet), 0.9);
}

// No time is kept from before: what takes equally long leaves the choice as it is.
TEST(TeamChoice, StaysWithTheTeamWhereNothingIsGained) {
  TeamChoice choice;
  EXPECT_GT(share_with_team(choice, 20'000, [](bool) { return kTeam; }), 0.98);
}

}  // namespace
}  // namespace perennial
