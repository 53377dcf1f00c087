// SPDX-License-Identifier: Apache-2.0
// Each metric on matrices worked out by hand, and with rows that are absent.
#include "perennial/continual/metrics.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <set>
#include <string>
#include <utility>

#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

// Sums of a few fractions: a few units in the last place.
constexpr double kRounding = 1e-15;

// Forgetting from a maximum that is not on the diagonal: column 0 is best after experience 2.
ScoreMatrix three() {
  ScoreMatrix a(3);
  a.set_row(0, {0.10, 0.20, 0.15});
  a.set_row(1, {0.80, 0.30, 0.25});
  a.set_row(2, {0.90, 0.70, 0.45});
  a.set_row(3, {0.60, 0.65, 0.75});
  return a;
}

// The matrix above without one row.
ScoreMatrix three_without(std::int64_t absent) {
  const ScoreMatrix whole = three();
  ScoreMatrix a(3);
  for (std::int64_t row = 0; row <= 3; ++row) {
    if (row != absent) a.set_row(row, {whole.at(row, 0), whole.at(row, 1), whole.at(row, 2)});
  }
  return a;
}

TEST(Metrics, OfThreeExperiences) {
  const ScoreMatrix a = three();
  EXPECT_NEAR(acc(a).value(), 2.0 / 3, kRounding);                  // (.60 + .65 + .75) / 3
  EXPECT_NEAR(bwt_gem(a).value(), -0.125, kRounding);               // ((.60-.80) + (.65-.70)) / 2
  EXPECT_NEAR(fwt_gem(a).value(), 0.20, kRounding);                 // ((.30-.20) + (.45-.15)) / 2
  EXPECT_NEAR(bwt_diaz(a).value(), -0.05, kRounding);               // (.10 - .20 - .05) / 3
  EXPECT_NEAR(forgetting_chaudhry(a).value(), 0.175, kRounding);    // ((.90-.60) + (.70-.65)) / 2
  EXPECT_NEAR(forgetting_first_last(a).value(), 0.125, kRounding);  // -bwt.gem
  EXPECT_NEAR(avg_incremental(a).value(), (0.80 + 0.80 + 2.0 / 3) / 3, kRounding);
}

TEST(Metrics, NothingForgottenIsZeroAndNotMinusZero) {
  ScoreMatrix a(2);
  a.set_row(1, {0.5, 0.1});
  a.set_row(2, {0.5, 0.5});
  EXPECT_EQ(boost::json::serialize(boost::json::value(*forgetting_first_last(a))), "0E0");
  EXPECT_EQ(bwt_gem(a), 0.0);
  EXPECT_EQ(forgetting_chaudhry(a), 0.0);
}

TEST(Metrics, OfOneExperience) {
  ScoreMatrix a(1);
  a.set_row(0, {0.1});
  a.set_row(1, {0.9});
  EXPECT_EQ(acc(a), 0.9);
  EXPECT_EQ(avg_incremental(a), 0.9);
  for (const auto metric :
       {bwt_gem, fwt_gem, bwt_diaz, forgetting_chaudhry, forgetting_first_last}) {
    EXPECT_EQ(metric(a), std::nullopt);
  }
}

TEST(Metrics, AreEmptyWhereARowTheyNeedIsAbsent) {
  struct Case {
    std::int64_t absent;
    bool acc, bwt_gem, fwt_gem, bwt_diaz, chaudhry, first_last, incremental;
  };
  for (const Case& c : {Case{0, true, true, false, true, true, true, true},
                        Case{1, true, false, false, false, false, false, false},
                        Case{2, true, false, false, false, false, false, false},
                        Case{3, false, false, true, false, false, false, false}}) {
    const ScoreMatrix a = three_without(c.absent);
    EXPECT_EQ(acc(a).has_value(), c.acc) << c.absent;
    EXPECT_EQ(bwt_gem(a).has_value(), c.bwt_gem) << c.absent;
    EXPECT_EQ(fwt_gem(a).has_value(), c.fwt_gem) << c.absent;
    EXPECT_EQ(bwt_diaz(a).has_value(), c.bwt_diaz) << c.absent;
    EXPECT_EQ(forgetting_chaudhry(a).has_value(), c.chaudhry) << c.absent;
    EXPECT_EQ(forgetting_first_last(a).has_value(), c.first_last) << c.absent;
    EXPECT_EQ(avg_incremental(a).has_value(), c.incremental) << c.absent;
  }
}

TEST(Metrics, AreEmptyWhereACellTheyNeedIsAbsent) {
  using Metric = std::optional<double> (*)(const ScoreMatrix&);
  struct Case {
    std::string name;
    Metric metric;
    // The cells (row, column from 0) that it needs of a matrix of three experiences.
    std::set<std::pair<std::int64_t, std::int64_t>> needs;
  };
  const std::set<std::pair<std::int64_t, std::int64_t>> of_bwt = {{3, 0}, {1, 0}, {3, 1}, {2, 1}};
  const Metric against_joint = [](const ScoreMatrix& a) {
    return intransigence(a, {0.85, 0.80, 0.75});
  };
  const Metric first_term = [](const ScoreMatrix& a) {
    const auto terms = forgetting_by_experience(a);
    return terms ? std::optional(terms->front()) : std::nullopt;
  };
  for (const Case& c :
       {Case{"acc", acc, {{3, 0}, {3, 1}, {3, 2}}}, Case{"bwt.gem", bwt_gem, of_bwt},
        Case{"fwt.gem", fwt_gem, {{1, 1}, {0, 1}, {2, 2}, {0, 2}}},
        Case{"bwt.diaz", bwt_diaz, {{2, 0}, {1, 0}, {3, 0}, {3, 1}, {2, 1}}},
        Case{"forgetting.chaudhry", forgetting_chaudhry, of_bwt},
        Case{"forgetting by experience", first_term, of_bwt},
        Case{"forgetting.first_last", forgetting_first_last, of_bwt},
        Case{"avg_incremental", avg_incremental, {{1, 0}, {2, 0}, {2, 1}, {3, 0}, {3, 1}, {3, 2}}},
        Case{"intransigence", against_joint, {{1, 0}, {2, 1}, {3, 2}}}}) {
    for (std::int64_t row = 0; row <= 3; ++row) {
      for (std::int64_t column = 0; column < 3; ++column) {
        ScoreMatrix a = three();
        a.clear(row, column);
        EXPECT_EQ(c.metric(a).has_value(), !c.needs.contains({row, column}))
            << c.name << " without (" << row << ", " << column << ")";
      }
    }
  }
}

TEST(Metrics, AMaximumIsOverTheCellsThatAreThere) {
  ScoreMatrix a = three();
  a.clear(2, 0);  // the best of the first column
  EXPECT_NEAR(forgetting_by_experience(a).value()[0], 0.20, kRounding);  // .80 - .60
}

TEST(Metrics, AllHaveTheirNames) {
  const boost::json::object metrics = all_metrics(three_without(0));
  EXPECT_EQ(metrics.size(), 7U);
  EXPECT_NEAR(metrics.at("acc").as_double(), 2.0 / 3, kRounding);
  EXPECT_NEAR(metrics.at("bwt.gem").as_double(), -0.125, kRounding);
  EXPECT_TRUE(metrics.at("fwt.gem").is_null());
  EXPECT_NEAR(metrics.at("bwt.diaz").as_double(), -0.05, kRounding);
  EXPECT_NEAR(metrics.at("forgetting.chaudhry").as_double(), 0.175, kRounding);
  EXPECT_NEAR(metrics.at("forgetting.first_last").as_double(), 0.125, kRounding);
  EXPECT_TRUE(metrics.at("avg_incremental").is_double());
}

TEST(Metrics, IntransigenceComparesWithAJointModel) {
  // ((.85-.80) + (.80-.70) + (.75-.75)) / 3
  EXPECT_NEAR(intransigence(three(), {0.85, 0.80, 0.75}).value(), 0.05, kRounding);
  // A joint model may be worse: ((.70-.80) + (.70-.70) + (.60-.75)) / 3
  EXPECT_NEAR(intransigence(three(), {0.70, 0.70, 0.60}).value(), -0.25 / 3, kRounding);
  EXPECT_EQ(intransigence(three_without(2), {0.85, 0.80, 0.75}), std::nullopt);
  EXPECT_TRUE(intransigence(three_without(0), {0.85, 0.80, 0.75}).has_value());
  EXPECT_THROW(intransigence(three(), {0.85, 0.80}), Error);
  ScoreMatrix one(1);
  one.set_row(1, {0.5});
  EXPECT_EQ(intransigence(one, {0.75}), 0.25);
}

TEST(Metrics, ForgettingByExperienceHasTheTermsOfTheMean) {
  const std::vector<double> terms = forgetting_by_experience(three()).value();
  ASSERT_EQ(terms.size(), 2U);
  EXPECT_NEAR(terms[0], 0.30, kRounding);
  EXPECT_NEAR(terms[1], 0.05, kRounding);
  EXPECT_EQ(forgetting_by_experience(three_without(1)), std::nullopt);
}

TEST(ScoreMatrix, RefusesWhatDoesNotFit) {
  EXPECT_THROW(ScoreMatrix(0), Error);
  ScoreMatrix a(2);
  EXPECT_THROW(a.set_row(3, {0, 0}), Error);
  EXPECT_THROW(a.set_row(-1, {0, 0}), Error);
  EXPECT_THROW(a.set_row(1, {0}), Error);
  EXPECT_THROW(a.set_row(1, {0, std::numeric_limits<double>::infinity()}), Error);
  EXPECT_THROW(a.set_row(1, {0, std::numeric_limits<double>::quiet_NaN()}), Error);
  EXPECT_THROW(a.at(1, 0), Error);
  EXPECT_FALSE(a.has_row(1));
  EXPECT_FALSE(a.has_row(7));
  a.set_row(1, {0.25, 1});
  EXPECT_EQ(a.at(1, 1), 1);
  EXPECT_THROW(a.at(1, 2), Error);
}

TEST(ScoreMatrix, GoesThroughJsonExactly) {
  ScoreMatrix a = three_without(2);
  a.set_row(3, {1.0 / 3, 2.0 / 7, 1});
  const std::string text = boost::json::serialize(a.to_json());
  const ScoreMatrix back = ScoreMatrix::from_json(boost::json::parse(text));
  EXPECT_EQ(back.experiences(), 3);
  EXPECT_FALSE(back.has_row(2));
  EXPECT_EQ(back.at(3, 0), 1.0 / 3);
  EXPECT_EQ(boost::json::serialize(back.to_json()), text);
  EXPECT_TRUE(a.to_json().as_array()[2].is_null());
  EXPECT_EQ(a.to_json().as_array().size(), 4U);

  for (const char* bad :
       {"{}", "[]", "[[1]]", "[[1], [1, 2]]", "[[1], 3]", "[[1], [\"x\"]]", "[null, [1], [1]]"}) {
    EXPECT_THROW(ScoreMatrix::from_json(boost::json::parse(bad)), DataError) << bad;
  }
}

}  // namespace
}  // namespace perennial::continual
