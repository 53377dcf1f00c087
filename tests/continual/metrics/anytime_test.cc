// SPDX-License-Identifier: Apache-2.0
// The anytime metrics on curves worked out by hand, and with points that were not taken.
#include "perennial/continual/anytime.h"

#include <gtest/gtest.h>

namespace perennial::continual {
namespace {

constexpr double kAnytimeRounding = 1e-15;

// Three experiences of three steps each, evaluated every second step and around the first two of
// each.
AnytimeCurve three_experiences() {
  AnytimeCurve curve{{.anytime_every = 2, .anytime_first = 2, .anytime_examples = 10},
                     TaskKind::classification,
                     3,
                     3,
                     {}};
  curve.points = {
      {1, 0, 0, false, {0.1}},            //
      {1, 1, 1, false, {0.4}},            //
      {1, 2, 2, false, {0.7}},            // regular
      {1, 3, 3, true, {0.8}},             //
      {2, 0, 3, false, {0.8, 0.2}},       //
      {2, 1, 4, false, {0.5, 0.5}},       // regular
      {2, 2, 5, false, {0.6, 0.6}},       //
      {2, 3, 6, false, {0.6, 0.7}},       // regular
      {2, 3, 6, true, {0.7, 0.9}},        //
      {3, 0, 6, false, {0.7, 0.9, 0.3}},  // 6 is even, but no minibatch of 3 has been learnt
      {3, 1, 7, false, {0.6, 0.8, 0.4}},
      {3, 2, 8, false, {0.7, 0.6, 0.6}},  // regular
      {3, 3, 9, true, {0.65, 0.7, 0.8}},
  };
  return curve;
}

AnytimeCurve three_experiences_without(std::size_t point) {
  AnytimeCurve curve = three_experiences();
  curve.points.erase(curve.points.begin() + static_cast<std::ptrdiff_t>(point));
  return curve;
}

TEST(Anytime, IsTheMeanOverRegularPoints) {
  // (.7 + (.5+.5)/2 + (.6+.7)/2 + (.7+.6+.6)/3) / 4
  EXPECT_NEAR(anytime(three_experiences()).value(), (0.7 + 0.5 + 0.65 + 1.9 / 3) / 4,
              kAnytimeRounding);
  AnytimeCurve none = three_experiences();
  none.options.anytime_every = 0;
  EXPECT_EQ(anytime(none), std::nullopt);
}

TEST(Anytime, LcaIsTheMeanOfTheFirstMinibatches) {
  // own accuracies: .1 .4 .7, .2 .5 .6, .3 .4 .6
  EXPECT_NEAR(lca(three_experiences(), 2).value(), 3.8 / 9, kAnytimeRounding);
  EXPECT_NEAR(lca(three_experiences(), 1).value(), (0.1 + 0.4 + 0.2 + 0.5 + 0.3 + 0.4) / 6,
              kAnytimeRounding);
  EXPECT_NEAR(lca(three_experiences(), 0).value(), 0.6 / 3, kAnytimeRounding);
  // Minibatch 3 of experience 2 was met; of the others only the end, which is after the freeze.
  EXPECT_EQ(lca(three_experiences(), 3), std::nullopt);
  EXPECT_EQ(lca(three_experiences(), -1), std::nullopt);
  for (const std::size_t absent : {0U, 1U, 2U, 4U, 5U, 6U, 9U, 10U, 11U}) {
    EXPECT_EQ(lca(three_experiences_without(absent), 2), std::nullopt) << absent;
  }
}

TEST(Anytime, MinAccIsTheWorstSinceAnExperienceEnded) {
  // Experience 1 after its end: .8 .5 .6 .6 .7 | .7 .6 .7 .65; experience 2: .9 .8 .6 .7
  EXPECT_NEAR(min_acc(three_experiences(), 2).value(), 0.5, kAnytimeRounding);
  EXPECT_NEAR(min_acc(three_experiences(), 3).value(), (0.5 + 0.6) / 2, kAnytimeRounding);
  EXPECT_EQ(min_acc(three_experiences(), 1), std::nullopt);
  EXPECT_EQ(min_acc(three_experiences(), 4), std::nullopt);
  EXPECT_EQ(min_acc(three_experiences_without(12), 3), std::nullopt);  // 3 has not ended
  EXPECT_EQ(min_acc(three_experiences_without(3), 2), std::nullopt);   // nor 1
}

TEST(Anytime, WcAccWeighsTheNewestByItsShare) {
  EXPECT_NEAR(wc_acc(three_experiences(), 1).value(), 0.8, kAnytimeRounding);
  EXPECT_NEAR(wc_acc(three_experiences(), 2).value(), 0.9 / 2 + 0.5 / 2, kAnytimeRounding);
  EXPECT_NEAR(wc_acc(three_experiences(), 3).value(), 0.8 / 3 + 0.55 * 2 / 3, kAnytimeRounding);
  EXPECT_EQ(wc_acc(three_experiences_without(12), 3), std::nullopt);
}

TEST(Anytime, OfOneExperience) {
  AnytimeCurve curve{{.anytime_every = 1, .anytime_first = 1, .anytime_examples = 0},
                     TaskKind::classification,
                     1,
                     1,
                     {}};
  curve.points = {{1, 0, 0, false, {0.25}}, {1, 1, 1, false, {0.75}}, {1, 1, 1, true, {0.5}}};
  EXPECT_EQ(anytime(curve), 0.75);
  EXPECT_EQ(lca(curve, 1), 0.5);
  EXPECT_EQ(min_acc(curve, 1), std::nullopt);
  EXPECT_EQ(wc_acc(curve, 1), 0.5);
}

TEST(Anytime, JointTrainingHasNoExperiencesToTellApart) {
  AnytimeCurve curve = three_experiences();
  curve.experiences = 1;
  curve.points = {{1, 0, 0, false, {0.1, 0.1, 0.1}},
                  {1, 2, 2, false, {0.6, 0.7, 0.8}},
                  {1, 2, 2, true, {0.6, 0.7, 0.8}}};
  EXPECT_NEAR(anytime(curve).value(), 0.7, kAnytimeRounding);
  EXPECT_EQ(lca(curve, 0), std::nullopt);
  EXPECT_EQ(min_acc(curve, 3), std::nullopt);
  EXPECT_EQ(wc_acc(curve, 1), std::nullopt);
}

TEST(Anytime, AllHaveTheirNames) {
  const boost::json::object metrics = all_metrics(three_experiences());
  EXPECT_EQ(metrics.size(), 4U);
  EXPECT_EQ(metrics.at("lca").as_double(), lca(three_experiences(), 2).value());
  EXPECT_EQ(metrics.at("anytime").as_double(), anytime(three_experiences()).value());
  EXPECT_EQ(metrics.at("min_acc").as_double(), min_acc(three_experiences(), 3).value());
  EXPECT_EQ(metrics.at("wc_acc").as_double(), wc_acc(three_experiences(), 3).value());
  AnytimeCurve empty = three_experiences();
  empty.points.clear();
  for (const auto& metric : all_metrics(empty)) EXPECT_TRUE(metric.value().is_null());
}

}  // namespace
}  // namespace perennial::continual
