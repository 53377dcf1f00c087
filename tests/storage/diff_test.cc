// SPDX-License-Identifier: Apache-2.0
// What diff_states counts.
#include "perennial/storage/diff.h"

#include "perennial/storage/memory_store.h"
#include "store_testing.h"

namespace perennial::storage::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Diff, CountsPagesExpertsAndBytes) {
  auto store = make_memory_store();
  Model model;
  Change first(model);
  first.page(weights(0, 0), 1).page(weights(1, 0), 2).page(weights(2, 0), 3);
  first.page({PageKind::state, 0, 0, 0}, 4, shape_of(4, 33)).dense("gone", bytes_of(1, 5));
  first.dense("same", bytes_of(2, 300'000)).dense("other", bytes_of(3, 70));
  ASSERT_TRUE(store->commit(first.get()).ok());
  Change second(model);
  second.experts(weights(1, 0), 0b1010, 9).remove(weights(2, 0)).page(weights(7, 1), 5);
  second.experts({PageKind::state, 0, 0, 0}, 0b1, 8).remove_dense("gone");
  second.dense("other", bytes_of(4, 80)).dense("new", bytes_of(5, 11));
  ASSERT_TRUE(store->commit(second.get()).ok());

  const auto before = store->at(1);
  ASSERT_TRUE(before.ok());
  const auto diff = diff_states(**before, *store);
  ASSERT_TRUE(diff.ok()) << diff.status().to_string();
  EXPECT_THAT(diff->added, ElementsAre(weights(7, 1)));
  EXPECT_THAT(diff->removed, ElementsAre(weights(2, 0)));
  EXPECT_THAT(diff->changed, ElementsAre(weights(1, 0), PageId{PageKind::state, 0, 0, 0}));
  EXPECT_EQ(diff->experts, 4u + 4 + 2);
  EXPECT_EQ(diff->bytes, 256u + 256 + 2 * 64 + 33 * 4 + 80 + 11);
  EXPECT_THAT(diff->dense_added, ElementsAre("new"));
  EXPECT_THAT(diff->dense_removed, ElementsAre("gone"));
  EXPECT_THAT(diff->dense_changed, ElementsAre("other"));
  EXPECT_FALSE(diff->empty());

  const auto back = diff_states(*store, **before);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->added, diff->removed);
  EXPECT_EQ(back->experts, diff->experts);
  EXPECT_TRUE(diff_states(*store, *store)->empty());
}

TEST(Diff, APageOfAnotherShapeCountsWhole) {
  auto store = make_memory_store();
  Model model;
  Change first(model);
  ASSERT_TRUE(store->commit(first.page(weights(0, 0), 1).get()).ok());
  Change second(model);
  ASSERT_TRUE(store->commit(second.page(weights(0, 0), 1, shape_of(8, 8)).get()).ok());
  const auto before = store->at(1);
  const auto diff = diff_states(**before, *store);
  ASSERT_TRUE(diff.ok());
  EXPECT_THAT(diff->changed, ElementsAre(weights(0, 0)));
  EXPECT_EQ(diff->experts, 8u);
  EXPECT_THAT(diff->dense_changed, IsEmpty());
}

}  // namespace
}  // namespace perennial::storage::testing
