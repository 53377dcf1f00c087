// SPDX-License-Identifier: Apache-2.0
// Copies of a state into every implementation: full, incremental, refused.
#include "perennial/storage/copy.h"

#include "store_contract.h"

namespace perennial::storage::testing {
namespace {

using ::testing::HasSubstr;

class Copies : public StoreContract {
 protected:
  // A store in memory to copy from.
  CommitInfo source_commit(const std::function<void(Change&)>& make) {
    Change change(model);
    make(change);
    const auto info = source->commit(change.get());
    EXPECT_TRUE(info.ok()) << info.status().to_string();
    return info.ok() ? *info : CommitInfo();
  }
  CopyReport copy(const CopyOptions& options = {}) {
    const auto report = copy_state(*source, *store, options);
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    return report.ok() ? *report : CopyReport();
  }
  std::unique_ptr<PageStore> source = make_memory_store();
};
INSTANTIATE_TEST_SUITE_P(Stores, Copies, all_stores(), store_name);

TEST_P(Copies, MoveOnlyWhatDiffers) {
  source_commit([](Change& c) {
    for (std::uint32_t row = 0; row < 20; ++row) c.page(weights(row, 0), row);
    c.page({PageKind::state, 0, 3, 0}, 7, shape_of(4, 33)).dense("a", bytes_of(1, 600'000));
    c.dense("b", bytes_of(2, 10)).snapshot("first");
    c.request.note = R"({"n":1})";
  });
  CopyReport report = copy();
  EXPECT_EQ(report.pages_copied, 21u);
  EXPECT_EQ(report.dense_copied, 2u);
  EXPECT_EQ(report.commit.state_digest, source->head()->state_digest);
  EXPECT_EQ(report.commit.note, R"({"n":1})");
  EXPECT_EQ(report.commit.snapshot, "first");
  EXPECT_EQ(store->identity(), source->identity());
  reopen();
  EXPECT_EQ(difference(*store, model), "");

  report = copy();
  EXPECT_TRUE(report.up_to_date);
  EXPECT_EQ(store->head()->commit, 1u);

  source_commit([](Change& c) {
    c.page(weights(5, 0), 99).page(weights(50, 0), 98).remove({PageKind::state, 0, 3, 0});
    c.dense("b", bytes_of(3, 10)).snapshot("second");
  });
  report = copy();
  EXPECT_FALSE(report.up_to_date);
  EXPECT_EQ(report.pages_copied, 2u);
  EXPECT_EQ(report.pages_kept, 19u);
  EXPECT_EQ(report.pages_removed, 1u);
  EXPECT_EQ(report.dense_copied, 1u);
  EXPECT_EQ(report.bytes_copied, 2u * 256 + 10);
  reopen();
  EXPECT_EQ(difference(*store, model), "");
  EXPECT_TRUE(store->resolve("first").ok());
  EXPECT_TRUE(store->resolve("second").ok());
}

TEST_P(Copies, AreMadeOfOlderStatesToo) {
  source_commit([](Change& c) { c.page(weights(0, 0), 1).snapshot("old"); });
  const Model then = model;
  source_commit([](Change& c) { c.page(weights(0, 0), 2).page(weights(1, 0), 3); });
  copy();
  const auto old = source->at(1);
  ASSERT_TRUE(old.ok());
  const auto report = copy_state(**old, *store, {.snapshot = "back"});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(difference(*store, then), "");
  EXPECT_EQ(*store->resolve("back"), 2u);
}

TEST_P(Copies, AreRefusedOntoAnotherStore) {
  EXPECT_EQ(copy_state(*source, *store).status().code(), StatusCode::not_found);
  source_commit([](Change& c) { c.page(weights(0, 0), 1); });
  Model other;
  Change change(other);
  commit(change.page(weights(0, 0), 2));
  const auto refused = copy_state(*source, *store);
  EXPECT_EQ(refused.status().code(), StatusCode::invalid_argument);
  EXPECT_THAT(refused.status().message(), HasSubstr("is no copy of"));
  EXPECT_EQ(copy_state(*source, *source).status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(difference(*store, other), "");
}

TEST(CopyToItself, IsRefusedThroughAViewToo) {
  TempFolder folder;
  auto store = open_rocksdb_store(folder.path() / "s", {.mode = OpenMode::create});
  ASSERT_TRUE(store.ok());
  Model model;
  Change first(model);
  ASSERT_TRUE((*store)->commit(first.page(weights(0, 0), 1).get()).ok());
  Change second(model);
  ASSERT_TRUE((*store)->commit(second.page(weights(0, 0), 2).get()).ok());
  const auto view = open_rocksdb_view(folder.path() / "s", {.snapshot = "1"});
  ASSERT_TRUE(view.ok()) << view.status().to_string();
  EXPECT_EQ(copy_state(**view, **store).status().code(), StatusCode::invalid_argument);
  EXPECT_EQ(difference(**store, model), "");
}

TEST_P(Copies, StoppedLeaveTheTargetAsItWas) {
  source_commit([](Change& c) {
    for (std::uint32_t row = 0; row < 9; ++row) c.page(weights(row, 0), row);
  });
  int seen = 0;
  const auto stopped = copy_state(*source, *store, {.on_progress = [&](auto done, auto all) {
    EXPECT_EQ(all, 9u);
    seen = static_cast<int>(done);
    return done < 4;
  }});
  EXPECT_FALSE(stopped.ok());
  EXPECT_EQ(seen, 4);
  EXPECT_FALSE(store->head().ok());
  copy();
  EXPECT_EQ(difference(*store, model), "");
}

}  // namespace
}  // namespace perennial::storage::testing
