// SPDX-License-Identifier: Apache-2.0
// The ridge strength that the sums choose, against a leave-nothing-out computation from the data.
#include "nn/ridge.h"

#include <cmath>
#include <limits>

#include "core/core_testing.h"
#include "perennial/core/analytic_head.h"
#include "perennial/core/fixed_features.h"
#include "perennial/core/gate.h"
#include "perennial/storage/memory_store.h"

namespace perennial {
namespace {

using namespace perennial::testing;

constexpr std::int64_t kInputs = 60, kFeatures = 24, kTargets = 3;

struct Data {
  at::Tensor f, y;  // (n, M), (n, C) one hot, float64
  RidgeSums sums() const { return {f.t().matmul(f), f.t().matmul(y), f.size(0)}; }
};

// Features of which a few tell the class, drowned in noise.
Data noisy(double noise) {
  Data data;
  const at::Tensor labels = at::arange(kInputs).remainder(kTargets);
  data.y = at::one_hot(labels, kTargets).to(at::kDouble);
  data.f = normal_tensor({kInputs, kFeatures}, 5).to(at::kDouble) * noise;
  data.f.slice(1, 0, kTargets).add_(data.y);
  return data;
}

// By its definition, with the hat matrix of all inputs.
double gcv(const Data& data, double ridge) {
  const at::Tensor regular = data.f.t().matmul(data.f) + ridge * at::eye(kFeatures, at::kDouble);
  const at::Tensor hat = data.f.matmul(at::linalg_inv(regular)).matmul(data.f.t());
  const double rss = (data.y - hat.matmul(data.y)).square().sum().item<double>();
  const double left = static_cast<double>(kInputs) - hat.diagonal().sum().item<double>();
  return rss / left / left;
}

TEST(Ridge, TheChosenStrengthHasTheLeastErrorOfAll) {
  for (const double noise : {0.1, 0.5, 2.0}) {
    const Data data = noisy(noise);
    const double chosen = choose_ridge(data.sums());
    double best = std::numeric_limits<double>::infinity();
    for (int power = -6; power <= 12; ++power) {
      best = std::min(best, gcv(data, std::pow(10.0, power / 2.0)));
    }
    EXPECT_LE(gcv(data, chosen), best * (1 + 1e-9)) << noise << ", " << chosen;
  }
  EXPECT_GT(choose_ridge(noisy(2.0).sums()), choose_ridge(noisy(0.1).sums()));
}

TEST(Ridge, LeavesTheSumsAsTheyWere) {
  const Data data = noisy(1);
  const RidgeSums sums = data.sums();
  const at::Tensor before = sums.a.clone();
  choose_ridge(sums);
  ridge_weights(sums.a, 3.5, sums.b);
  EXPECT_TRUE(at::equal(sums.a, before));
}

TEST(Ridge, LeavesTheSumsAsTheyWereWhenItFails) {
  const at::Tensor a = -at::eye(4, at::kDouble) + 0.1, before = a.clone();
  const std::string message = message_of<Error>([&] { (void)ridge_factor(a, 0.125); });
  EXPECT_THAT(message, ::testing::HasSubstr("ridge is 0.125"));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_TRUE(same_bits(a, before));
}

TEST(Ridge, OfNothingIsADefault) {
  EXPECT_EQ(choose_ridge({}), 100);
  EXPECT_EQ(choose_ridge({at::zeros({4, 4}, at::kDouble), at::zeros({4, 2}, at::kDouble), 9}), 100);
}

TEST(Ridge, TheChoiceScalesWithTheFeatures) {
  for (const double noise : {0.1, 0.5, 2.0}) {
    const double chosen = choose_ridge(noisy(noise).sums());
    for (const double scale : {1e-6, 1e3, 1e8}) {
      Data scaled = noisy(noise);
      scaled.f.mul_(scale);
      EXPECT_NEAR(choose_ridge(scaled.sums()) / (chosen * scale * scale), 1, 1e-9) << scale;
    }
  }
}

// Columns that are nearly one and the same, as random features of a few raw columns are.
TEST(Ridge, IsChosenForSumsThatAreSingular) {
  for (const double scale : {1e-8, 1.0, 1e9}) {
    Data data = noisy(0.5);
    data.f = data.f.narrow(1, 0, 1).expand({kInputs, kFeatures}) * scale;
    const RidgeSums sums = data.sums();
    const at::Tensor before = sums.a.clone();
    const double chosen = choose_ridge(sums);
    EXPECT_TRUE(same_bits(sums.a, before));
    const at::Tensor weights = ridge_weights(sums.a, chosen, sums.b);
    const at::Tensor scores = data.f.matmul(weights.to(at::kDouble).t());
    EXPECT_TRUE(at::isfinite(scores).all().item<bool>()) << scale;
    EXPECT_LT(scores.abs().max().item<double>(), 2) << scale;
  }
}

TEST(Ridge, AHeadAtZeroSolvesForRawColumns) {
  // An income, an age and a year: random features of them are alike to many digits.
  at::Tensor x = at::stack({normal_tensor({200}, 1).abs() * 5e6 + 2e7,
                            normal_tensor({200}, 2) * 10 + 40, normal_tensor({200}, 3) + 2000},
                           1);
  const FixedFeatures features(3, {}, {.kind = FeatureKind::random, .count = 256, .seed = 5});
  AnalyticHead head(256, 2, 0);
  const at::Tensor f = features(x), y = x.select(1, 0).gt(2.4e7).to(at::kLong);
  head.observe(f, y);
  EXPECT_TRUE(at::isfinite(head.scores(f)).all().item<bool>());
  EXPECT_GT(head.ridge(), 1e-3);
}

TEST(Ridge, AGateAtZeroUsesWhatItsSumsChoose) {
  AnalyticGateOptions options;
  options.features = 32;
  options.ridge = 0;
  options.head_weight = 1;
  const auto observe = [](AnalyticGate& gate) {
    for (int g = 0; g < 2; ++g) {
      gate.add_generation();
      const at::Tensor x = normal_tensor({50, 8}, 70 + static_cast<std::uint64_t>(g)) + 0.5 * g;
      gate.observe(x, g, at::arange(50).remainder(2));
    }
  };
  AnalyticGate gate(8, options, 2);
  observe(gate);
  const double chosen = gate.ridge();
  options.ridge = chosen;
  AnalyticGate given(8, options, 2);
  observe(given);
  const at::Tensor probe = normal_tensor({9, 8}, 99);
  EXPECT_TRUE(at::equal(gate.scores(probe), given.scores(probe)));
  EXPECT_EQ(gate.novelty(probe, 0), given.novelty(probe, 0));
  // A class head chooses from its own generation's sums.
  EXPECT_TRUE(at::isfinite(gate.class_scores(probe, 1)).all().item<bool>());

  const auto store = storage::make_memory_store();
  storage::CommitRequest request;
  gate.add_to_commit(request);
  ASSERT_TRUE(store->commit(request).ok());
  AnalyticGate loaded = AnalyticGate::load(*store);
  EXPECT_EQ(loaded.ridge(), chosen);
  EXPECT_TRUE(at::equal(loaded.scores(probe), given.scores(probe)));
}

TEST(Ridge, AHeadAtZeroUsesWhatItsSumsChoose) {
  const Data data = noisy(1);
  const at::Tensor f = data.f.to(at::kFloat), labels = data.y.argmax(1);
  AnalyticHead head(kFeatures, kTargets, 0);
  head.observe(f.slice(0, 0, 40), labels.slice(0, 0, 40));

  const auto store = storage::make_memory_store();
  storage::CommitRequest request;
  head.add_to_commit(request);
  ASSERT_TRUE(store->commit(request).ok());
  AnalyticHead loaded = AnalyticHead::load(*store);
  for (AnalyticHead* one : {&head, &loaded}) {
    one->observe(f.slice(0, 40), labels.slice(0, 40));
    one->solve();
    EXPECT_EQ(one->ridge(), choose_ridge(Data{f.to(at::kDouble), data.y}.sums()));
  }
  AnalyticHead given(kFeatures, kTargets, head.ridge());
  given.observe(f.slice(0, 0, 40), labels.slice(0, 0, 40));
  given.observe(f.slice(0, 40), labels.slice(0, 40));
  EXPECT_TRUE(at::equal(head.scores(f), given.scores(f)));
  EXPECT_TRUE(at::equal(loaded.scores(f), given.scores(f)));
}

}  // namespace
}  // namespace perennial
