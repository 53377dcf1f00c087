// SPDX-License-Identifier: Apache-2.0
// The analytic head: it solves the ridge regression, in any order of classes, and comes back whole.
#include "perennial/core/analytic_head.h"

#include "core/core_testing.h"
#include "perennial/core/dense_state.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using ::testing::HasSubstr;

constexpr std::int64_t kClasses = 4;

struct Examples {
  at::Tensor f, y;
};
Examples examples(std::int64_t n, std::int64_t features, std::uint64_t seed) {
  at::Tensor y = at::arange(n).remainder(kClasses);
  at::Tensor f = normal_tensor({n, features}, seed, 0.5F) +
                 normal_tensor({kClasses, features}, 99).index_select(0, y);
  return {f, y};
}

// 1100 features: more than one block of the statistics.
TEST(AnalyticHead, SolvesTheRidgeRegression) {
  for (const std::int64_t features : {1, 7, 1100}) {
    AnalyticHead head(features, kClasses, 0.5);
    const Examples all = examples(60, features, 1);
    head.observe(all.f.slice(0, 0, 25), all.y.slice(0, 0, 25));
    head.observe(all.f.slice(0, 25), all.y.slice(0, 25));
    const at::Tensor f = all.f.to(at::kDouble), eye = at::eye(features, at::kDouble);
    const at::Tensor w = at::linalg_solve(f.t().mm(f) + 0.5 * eye,
                                          f.t().mm(at::one_hot(all.y, kClasses).to(at::kDouble)));
    const at::Tensor probes = examples(9, features, 2).f;
    const at::Tensor expected = probes.to(at::kDouble).mm(w);
    // Scores are sums of up to 1100 products in float32.
    EXPECT_TRUE(at::allclose(head.scores(probes).to(at::kDouble), expected, 1e-3, 1e-4))
        << features;
  }
}

// y may be numbers; as classes, one hot, they are the same sums.
TEST(AnalyticHead, SolvesForNumbers) {
  const Examples all = examples(60, 7, 1);
  const at::Tensor y = normal_tensor({60, 2}, 3, 5) + all.f.narrow(1, 0, 2) * 20;
  AnalyticHead head(7, 2, 0.5);
  head.observe(all.f.slice(0, 0, 25), y.slice(0, 0, 25));
  head.observe(all.f.slice(0, 25), y.slice(0, 25));
  const at::Tensor f = all.f.to(at::kDouble), eye = at::eye(7, at::kDouble);
  const at::Tensor w = at::linalg_solve(f.t().mm(f) + 0.5 * eye, f.t().mm(y.to(at::kDouble)));
  EXPECT_TRUE(at::allclose(head.scores(all.f).to(at::kDouble), f.mm(w), 1e-3, 1e-3));
  AnalyticHead classes(7, kClasses, 0.5), one_hot(7, kClasses, 0.5);
  classes.observe(all.f, all.y);
  one_hot.observe(all.f, at::one_hot(all.y, kClasses).to(at::kFloat));
  EXPECT_TRUE(at::equal(classes.scores(all.f), one_hot.scores(all.f)));
  EXPECT_THROW(head.observe(all.f, y.narrow(1, 0, 1)), Error);
  EXPECT_THROW(head.observe(all.f, y / 0), DataError);
}

// The squared error that is judged is that of the numbers, whatever their scale.
TEST(AnalyticHead, ChoosesTheSameStrengthForNumbersOfAnyScale) {
  const Examples all = examples(60, 7, 1);
  const at::Tensor y = normal_tensor({60, 2}, 3, 0.3F) + all.f.narrow(1, 0, 2);
  const auto solved = [&](double scale) {
    AnalyticHead head(7, 2, 0, {2, 7});
    head.observe(all.f, y * scale);
    head.solve();
    const auto store = storage::make_memory_store();
    storage::CommitRequest request;
    head.add_to_commit(request);
    EXPECT_TRUE(store->commit(request).ok());
    AnalyticHead back = AnalyticHead::load(*store);
    EXPECT_TRUE(at::equal(back.scores(all.f), head.scores(all.f)));
    EXPECT_EQ(back.ridge(), head.ridge());
    return std::pair(head.width(), head.ridge());
  };
  const auto plain = solved(1);
  for (const double scale : {0.0625, 64.0}) EXPECT_EQ(solved(scale), plain) << scale;
}

TEST(AnalyticHead, ClassesInTurnAreLearntAsTheyAreTogether) {
  const Examples all = examples(80, 20, 1);
  AnalyticHead together(20, kClasses, 1), in_turn(20, kClasses, 1);
  together.observe(all.f, all.y);
  for (std::int64_t c = 0; c < kClasses; ++c) {
    const at::Tensor rows = (all.y == c).nonzero().squeeze(1);
    in_turn.observe(all.f.index_select(0, rows), all.y.index_select(0, rows));
    (void)in_turn.scores(all.f);  // solving on the way changes nothing
  }
  EXPECT_TRUE(at::allclose(in_turn.scores(all.f), together.scores(all.f), 1e-5, 1e-6));
  const at::Tensor right = in_turn.scores(all.f).argmax(1).eq(all.y);
  EXPECT_GT(right.sum().item<std::int64_t>(), 76);
}

TEST(AnalyticHead, ScoresDoNotDependOnTheBatch) {
  AnalyticHead head(37, kClasses, 1);
  const Examples all = examples(50, 37, 1);
  head.observe(all.f, all.y);
  const at::Tensor scores = head.scores(all.f);
  for (std::int64_t i = 0; i < 50; i += 9) {
    EXPECT_TRUE(same_bits(head.scores(all.f.slice(0, i, i + 1)), scores.slice(0, i, i + 1)));
  }
  EXPECT_EQ(AnalyticHead(37, kClasses, 1).scores(all.f).abs().max().item<float>(), 0);
}

TEST(AnalyticHead, ComesBackFromTheStoreAndGoesOn) {
  const auto store = storage::make_memory_store();
  AnalyticHead head(1030, kClasses, 1e-3);
  const Examples first = examples(30, 1030, 1), second = examples(30, 1030, 2);
  head.observe(first.f, first.y);
  storage::CommitRequest failed;
  head.add_to_commit(failed);
  head.commit_failed();
  commit(*store, head);
  AnalyticHead loaded = AnalyticHead::load(*store);
  EXPECT_TRUE(same_bits(loaded.scores(first.f), head.scores(first.f)));
  storage::CommitRequest nothing;
  loaded.add_to_commit(nothing);
  EXPECT_TRUE(nothing.dense.empty()) << "nothing changed";
  head.observe(second.f, second.y);
  loaded.observe(second.f, second.y);
  EXPECT_TRUE(same_bits(loaded.scores(first.f), head.scores(first.f)));
  const auto other = storage::make_memory_store();
  storage::CommitRequest left, right;
  head.add_to_commit(left);
  loaded.add_to_commit(right);
  EXPECT_EQ(dense_bytes(left), dense_bytes(right));
}

TEST(AnalyticHead, RefusesWhatItCannotUse) {
  EXPECT_THROW(AnalyticHead(0, 2, 1), InvalidOptions);
  EXPECT_THROW(AnalyticHead(2, 0, 1), InvalidOptions);
  EXPECT_THROW(AnalyticHead(2, 2, -1), InvalidOptions);
  AnalyticHead head(3, kClasses, 1);
  const at::Tensor y = at::zeros({2}, at::kLong);
  EXPECT_THAT(message_of<Error>([&] { head.observe(at::ones({2, 4}), y); }), HasSubstr("[2, 4]"));
  EXPECT_THROW(head.observe(at::ones({3, 3}), y), Error);
  EXPECT_THROW(head.observe(at::full({2, 3}, NAN), y), DataError);
  EXPECT_EQ(head.scores(at::ones({1, 3})).abs().max().item<float>(), 0) << "nothing was added";
  const auto store = storage::make_memory_store();
  EXPECT_THROW((void)AnalyticHead::load(*store), StorageError);
  commit(*store, head);
  storage::CommitRequest damage;
  damage.dense["head/a/0/0"] = bytes_from(at::zeros({2, 2}, at::kDouble));
  ASSERT_TRUE(store->commit(damage).ok());
  EXPECT_THAT(message_of<DataError>([&] { (void)AnalyticHead::load(*store); }),
              HasSubstr("head/a/0/0"));
  for (const char* record : {"{", "[]", "{}", R"({"features": 0, "classes": 3, "ridge": 1})",
                             R"({"features": 3, "classes": 3, "ridge": 0})"}) {
    storage::CommitRequest other;
    other.dense["head"] = bytes_from(std::string(record));
    ASSERT_TRUE(store->commit(other).ok());
    EXPECT_THAT(message_of<DataError>([&] { (void)AnalyticHead::load(*store); }),
                HasSubstr("record 'head' is malformed"))
        << record;
  }
}

}  // namespace
}  // namespace perennial
