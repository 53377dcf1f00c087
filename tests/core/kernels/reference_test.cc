// SPDX-License-Identifier: Apache-2.0
// The reference itself: gradients against central differences in double, retrieval by hand.
#include "perennial/kernels/reference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "inputs.h"
#include "perennial/kernels/expert_id.h"

namespace perennial::kernels {
namespace {

using testing::ElementsAre;

// Central differences with this step are off by about step^2 from curvature and 1e-16 / step from
// rounding.
constexpr double kStep = 1e-5;
constexpr double kTolerance = 1e-8;

double difference(double& x, const std::function<double()>& loss) {
  const double before = x;
  x = before + kStep;
  const double above = loss();
  x = before - kStep;
  const double below = loss();
  x = before;
  return (above - below) / (2 * kStep);
}

struct GradientCase {
  Activation activation;
  bool glu;
  ScoreFunction score;
  std::int64_t width;
};

class ReferenceGradient : public testing::TestWithParam<GradientCase> {};

TEST_P(ReferenceGradient, MatchesCentralDifferences) {
  const auto [activation, glu, score_function, width] = GetParam();
  constexpr std::size_t kSlots = 4;
  const ExpertLayout layout{5, 3, glu, width};
  const auto wide = [](const std::vector<float>& v) {
    return std::vector<double>(v.begin(), v.end());
  };
  auto scores = wide(uniform(kSlots, 1)), x = wide(uniform(layout.d_in, 2));
  const auto dy = wide(uniform(layout.d_out, 3));
  std::vector<std::vector<double>> pool;
  for (std::uint32_t e = 0; e + 1 < kSlots; ++e)
    pool.push_back(wide(uniform(layout.stride(), 4 + e)));
  // The last slot retrieves the first expert again.
  const std::vector<const double*> experts{pool[0].data(), pool[1].data(), pool[2].data(),
                                           pool[0].data()};

  const auto loss = [&] {
    const auto y = reference::experts_forward<double>(
        layout, activation, experts, reference::score<double>(score_function, scores), x);
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };

  const auto weights = reference::score<double>(score_function, scores);
  const auto backward =
      reference::experts_backward<double>(layout, activation, experts, weights, x, dy);
  const auto dscores =
      reference::score_backward<double>(score_function, weights, backward.dweights);

  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(backward.dx[i], difference(x[i], loss), kTolerance);
  }
  for (std::size_t s = 0; s < kSlots; ++s) {
    EXPECT_NEAR(dscores[s], difference(scores[s], loss), kTolerance);
  }
  for (std::size_t e = 0; e < pool.size(); ++e) {
    for (std::size_t i = 0; i < pool[e].size(); ++i) {
      double expected = backward.dexperts[e][i];
      if (e == 0) expected += backward.dexperts[3][i];
      EXPECT_NEAR(expected, difference(pool[e][i], loss), kTolerance) << e << ", " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ReferenceGradient, testing::ValuesIn([] {
                           std::vector<GradientCase> cases;
                           for (const auto activation : kActivations) {
                             for (const bool glu : {false, true}) {
                               for (const auto score : kScoreFunctions) {
                                 for (const std::int64_t width : {1, 3})
                                   cases.push_back({activation, glu, score, width});
                               }
                             }
                           }
                           return cases;
                         }()));

TEST(Reference, RetrievesByScoreThenId) {
  const std::vector<double> query{1, 1}, rows{0.5, 0.25, 0.5}, cols{0, 0.25};
  const std::vector<KeySegment> segments{{.key_begin = 0, .rows = 2, .cols = 2, .first_row = 10},
                                         {.key_begin = 2, .rows = 1, .cols = 1, .first_row = 20}};
  const auto best = reference::retrieve<double>(query, rows, cols, 1, segments, 10);
  std::vector<std::int64_t> ids;
  for (const auto& entry : best) ids.push_back(entry.id);
  EXPECT_THAT(ids, ElementsAre(expert_id(10, 1), expert_id(10, 0), expert_id(11, 1),
                               expert_id(20, 0), expert_id(11, 0)));
  EXPECT_EQ(best[0].score, 0.75);
  EXPECT_EQ(best[3].row_index, 2);
  EXPECT_EQ(best[3].col_index, 0);
}

}  // namespace
}  // namespace perennial::kernels
