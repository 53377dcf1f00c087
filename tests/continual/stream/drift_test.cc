// SPDX-License-Identifier: Apache-2.0
// The drift detector on made-up losses: abrupt and gradual drifts, and alarms where nothing drifts.
#include "perennial/continual/drift.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <string>

#include "perennial/kernels/philox.h"

namespace perennial::continual {
namespace {

using Verdict = DriftDetector::Verdict;

// Mean losses of batches of a model that learns: from 2.3 down to 0.45, with a tail to the right.
class Losses {
 public:
  explicit Losses(std::uint64_t seed) : random_(seed) {}
  double next(double added = 0) {
    const double mean = 0.45 + 1.85 * std::exp(-static_cast<double>(step_++) / 15) + added;
    // The mean of four exponentials, of deviation 1/2, scaled to 18% of the loss.
    double sum = 0;
    for (int i = 0; i < 4; ++i) sum -= std::log(1 - uniform());
    return mean * (1 + 0.36 * (sum / 4 - 1));
  }

 private:
  double uniform() { return static_cast<double>(random_.below(1u << 30)) / (1u << 30); }
  kernels::RandomStream random_;
  std::int64_t step_ = 0;
};

constexpr int kRuns = 300;

// The step after the onset at which a loss that rises by `height` over `ramp` steps is noticed.
std::optional<int> delay_of(std::uint64_t seed, double height, int ramp, int patience) {
  DriftDetector detector({});
  Losses losses(seed);
  for (int i = 0; i < 200; ++i) detector.observe(losses.next());
  for (int i = 0; i < patience; ++i) {
    const double added = height * std::min(1.0, (i + 1.0) / ramp);
    if (detector.observe(losses.next(added)) == Verdict::drift) return i + 1;
  }
  return std::nullopt;
}

TEST(DriftDetector, HasFewFalseAlarms) {
  int alarms = 0, suspicions = 0;
  for (int run = 0; run < kRuns; ++run) {
    DriftDetector detector({});
    Losses losses(static_cast<std::uint64_t>(run));
    for (int i = 0; i < 1000; ++i) {
      const Verdict verdict = detector.observe(losses.next());
      alarms += verdict == Verdict::drift ? 1 : 0;
      suspicions += verdict == Verdict::suspicious ? 1 : 0;
    }
  }
  RecordProperty("false_alarms_in_300000_steps", alarms);
  RecordProperty("false_suspicions_in_300000_steps", suspicions);
  EXPECT_LE(alarms, 6);
  EXPECT_GT(suspicions, 0) << "the losses have no tail, and the test says nothing";
  EXPECT_LT(suspicions, 300000 / 50);
}

TEST(DriftDetector, NoticesAnAbruptDriftAtOnce) {
  for (int run = 0; run < kRuns; ++run) {
    EXPECT_EQ(delay_of(static_cast<std::uint64_t>(run), 2, 1, 50), 3) << run;
  }
}

TEST(DriftDetector, NoticesAGradualDriftUnlessTheMeanFollows) {
  std::map<int, int> noticed;
  for (const int ramp : {10, 25, 100, 2000}) {
    for (int run = 0; run < kRuns; ++run) {
      if (delay_of(static_cast<std::uint64_t>(run), 2, ramp, 2 * ramp + 50)) ++noticed[ramp];
    }
    RecordProperty("noticed_of_300_over_" + std::to_string(ramp), noticed[ramp]);
  }
  EXPECT_EQ(noticed[10], kRuns);
  EXPECT_GE(noticed[25], kRuns * 97 / 100);
  // Over two windows the mean keeps up with most of them.
  EXPECT_LT(noticed[100], kRuns / 4);
  EXPECT_LE(noticed[2000], kRuns / 5);
}

TEST(DriftDetector, SeesNothingWithinItsWindow) {
  DriftDetector detector({.threshold = 4, .steps = 1, .window = 20});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(detector.observe(1), Verdict::usual);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(detector.observe(100), Verdict::usual);
}

TEST(DriftDetector, NeedsSuspiciousLossesInARow) {
  DriftDetector detector({.threshold = 4, .steps = 3, .window = 5});
  for (int i = 0; i < 20; ++i) detector.observe(1);
  EXPECT_EQ(detector.observe(9), Verdict::suspicious);
  EXPECT_EQ(detector.observe(9), Verdict::suspicious);
  EXPECT_EQ(detector.observe(1), Verdict::usual);
  EXPECT_EQ(detector.state().mean, 1) << "suspicious losses count into the mean";
  EXPECT_EQ(detector.observe(9), Verdict::suspicious);
  EXPECT_EQ(detector.observe(9), Verdict::suspicious);
  EXPECT_EQ(detector.observe(9), Verdict::drift);
  EXPECT_EQ(detector.state().observed, 0);
}

TEST(DriftDetector, LeavesOutLossesThatAreNotFinite) {
  DriftDetector detector({.threshold = 4, .steps = 1, .window = 5});
  for (int i = 0; i < 20; ++i) detector.observe(1);
  EXPECT_EQ(detector.observe(std::numeric_limits<double>::quiet_NaN()), Verdict::usual);
  EXPECT_EQ(detector.observe(std::numeric_limits<double>::infinity()), Verdict::usual);
  EXPECT_EQ(detector.state().mean, 1);
  EXPECT_EQ(detector.observe(9), Verdict::drift);
}

TEST(DriftDetector, GoesOnFromItsState) {
  DriftDetector whole({});
  Losses losses(1), same_losses(1);
  for (int i = 0; i < 260; ++i) {
    const double added = i < 250 ? 0 : 2;
    DriftDetector continued({});
    continued.set_state(whole.state());
    const Verdict expected = whole.observe(losses.next(added));
    EXPECT_EQ(continued.observe(same_losses.next(added)), expected);
    EXPECT_EQ(continued.state().mean, whole.state().mean);
    EXPECT_EQ(continued.state().variance, whole.state().variance);
  }
}

}  // namespace
}  // namespace perennial::continual
