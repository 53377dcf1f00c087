// SPDX-License-Identifier: Apache-2.0
// The width and strength that the sums choose, against the hat matrices of all candidates.
#include "nn/nested_ridge.h"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/core_testing.h"
#include "perennial/core/analytic_head.h"
#include "perennial/core/error.h"
#include "perennial/storage/memory_store.h"

namespace perennial {
namespace {

using namespace perennial::testing;

constexpr std::int64_t kRows = 60, kColumns = 50, kLabels = 3;
const std::vector<std::int64_t> kWidths = {4, 20, kColumns};

struct NestedData {
  at::Tensor f, y;  // (n, M), (n, C) one hot, float64
  RidgeSums sums() const { return {f.t().matmul(f), f.t().matmul(y), f.size(0)}; }
};

// The classes are where the three columns from `first` on are; the others are noise.
NestedData informative(std::int64_t first, double noise) {
  NestedData data;
  const at::Tensor labels = at::arange(kRows).remainder(kLabels);
  data.y = at::one_hot(labels, kLabels).to(at::kDouble);
  data.f = normal_tensor({kRows, kColumns}, 5).to(at::kDouble) * noise;
  data.f.slice(1, first, first + kLabels).add_(data.y);
  return data;
}

at::Tensor solved(const NestedData& data, std::int64_t width, double ridge) {
  const at::Tensor f = data.f.slice(1, 0, width);
  return at::linalg_solve(f.t().matmul(f) + ridge * at::eye(width, at::kDouble),
                          f.t().matmul(data.y));
}

// By its definition; infinite where it spends more than there is.
double priced_gcv(const NestedData& data, std::int64_t width, double ridge) {
  const at::Tensor f = data.f.slice(1, 0, width);
  const at::Tensor regular = f.t().matmul(f) + ridge * at::eye(width, at::kDouble);
  const double df = f.matmul(at::linalg_inv(regular)).matmul(f.t()).diagonal().sum().item<double>();
  const double rss = (data.y - f.matmul(solved(data, width, ridge))).square().sum().item<double>();
  const double left = static_cast<double>(kRows) - 1.4 * df;
  return left > 0 ? rss / left / left : std::numeric_limits<double>::infinity();
}

TEST(NestedRidge, ChoosesTheLeastErrorOfAllWidthsAndStrengths) {
  for (const auto& [first, noise] :
       {std::pair<std::int64_t, double>{0, 0.1}, {0, 1}, {10, 0.3}, {30, 0.3}, {30, 2}}) {
    const NestedData data = informative(first, noise);
    const NestedRidge chosen = nested_ridge(data.sums(), kWidths);
    double best = std::numeric_limits<double>::infinity();
    for (const std::int64_t width : kWidths) {
      const double scale =
          data.f.slice(1, 0, width).square().sum().item<double>() / static_cast<double>(width);
      for (int power = -12; power <= 6; ++power) {
        best = std::min(best, priced_gcv(data, width, scale * std::pow(10.0, power / 2.0)));
      }
    }
    EXPECT_NEAR(priced_gcv(data, chosen.width, chosen.ridge) / best, 1, 1e-9) << first << noise;
    EXPECT_TRUE(at::allclose(chosen.weights, solved(data, chosen.width, chosen.ridge), 1e-7, 1e-9));
  }
  EXPECT_EQ(nested_ridge(informative(0, 0.3).sums(), kWidths).width, 4);
  EXPECT_EQ(nested_ridge(informative(30, 0.3).sums(), kWidths).width, kColumns);
}

TEST(NestedRidge, NeedsNoInputsNorIndependentOnes) {
  NestedData data = informative(0, 1);
  const RidgeSums none{at::zeros({kColumns, kColumns}, at::kDouble),
                       at::zeros({kColumns, kLabels}, at::kDouble), 0};
  EXPECT_EQ(nested_ridge(none, kWidths).weights.abs().max().item<double>(), 0);
  // Columns of zeros, and of multiples of others whose sizes differ by 20 powers of ten.
  data.f.slice(1, 10, 20).zero_();
  data.f.slice(1, 20, 30).copy_(data.f.slice(1, 0, 10) * 1e10);
  data.f.slice(1, 30, 40).copy_(data.f.slice(1, 0, 10) * 1e-10);
  for (const NestedData& some : {data, NestedData{at::zeros_like(data.f), data.y},
                                 NestedData{data.f.slice(0, 0, 1), data.y.slice(0, 0, 1)}}) {
    EXPECT_TRUE(nested_ridge(some.sums(), kWidths).weights.isfinite().all().item<bool>());
  }
}

TEST(NestedRidge, IsWhatAHeadWithWidthsSolves) {
  const NestedData data = informative(0, 0.3);
  const auto store = storage::make_memory_store();
  AnalyticHead head(kColumns, kLabels, 0, kWidths);
  const at::Tensor f = data.f.to(at::kFloat), y = data.y.argmax(1);
  EXPECT_EQ(head.scores(f).abs().max().item<float>(), 0);
  head.observe(f, y);
  const at::Tensor scores = head.scores(f);
  EXPECT_EQ(head.width(), 4);
  EXPECT_GT(head.ridge(), 0);
  // What it does not use does not count.
  at::Tensor other = f.clone();
  other.slice(1, 4).normal_();
  EXPECT_TRUE(same_bits(head.scores(other), scores));
  EXPECT_TRUE(at::allclose(scores.to(at::kDouble),
                           data.f.slice(1, 0, 4).matmul(solved(data, 4, head.ridge())), 1e-5,
                           1e-6));
  commit(*store, head);
  AnalyticHead loaded = AnalyticHead::load(*store);
  EXPECT_EQ(loaded.widths(), kWidths);
  EXPECT_TRUE(same_bits(loaded.scores(f), scores));
  for (const std::vector<std::int64_t>& bad :
       std::vector<std::vector<std::int64_t>>{{0, kColumns}, {4, 4, kColumns}, {20, 4}, {4, 20}}) {
    EXPECT_THROW(AnalyticHead(kColumns, kLabels, 0, bad), InvalidOptions);
  }
  EXPECT_THROW(AnalyticHead(kColumns, kLabels, 1, kWidths), InvalidOptions);
}

}  // namespace
}  // namespace perennial
