// SPDX-License-Identifier: Apache-2.0
// The state digest: the same for the same state, whatever the history and the implementation.
#include <functional>
#include <memory>

#include "perennial/storage/memory_store.h"
#include "perennial/storage/rocksdb_store.h"
#include "store_testing.h"

namespace perennial::storage::testing {
namespace {

// Two histories that end in one state, in two implementations: one digest.
TEST(StateDigest, IsIndependentOfHistoryAndImplementation) {
  TempFolder folder;
  auto durable = open_rocksdb_store(folder.path() / "s", {.mode = OpenMode::create});
  ASSERT_TRUE(durable.ok());
  auto memory = make_memory_store();
  Model a;
  Change all(a);
  all.page(weights(0, 0), 1).page(weights(0, 5), 2).page(weights(3, 0), 3);
  all.dense("x", bytes_of(4, 300'000)).dense("y", {});
  const auto at_once = memory->commit(all.get());
  ASSERT_TRUE(at_once.ok());

  Model b;
  Change one(b);
  one.page(weights(0, 5), 77).page(weights(9, 9), 8).dense("x", bytes_of(9, 9)).dense("z", {});
  ASSERT_TRUE((*durable)->commit(one.get()).ok());
  EXPECT_NE((*durable)->head()->state_digest, at_once->state_digest);
  Change two(b);
  two.page(weights(0, 0), 1).page(weights(0, 5), 2).page(weights(3, 0), 3).remove(weights(9, 9));
  two.dense("x", bytes_of(4, 300'000)).dense("y", {}).remove_dense("z");
  const auto stepwise = (*durable)->commit(two.get());
  ASSERT_TRUE(stepwise.ok());
  EXPECT_EQ(stepwise->state_digest, at_once->state_digest);
}

TEST(StateDigest, SeesEveryPart) {
  const auto digest_with = [](const std::function<void(Change&)>& make) {
    auto store = make_memory_store();
    Model model;
    Change change(model);
    make(change);
    return store->commit(change.get())->state_digest;
  };
  const std::vector<Digest> digests = {
      digest_with([](Change&) {}),
      digest_with([](Change& c) { c.page(weights(0, 0), 1); }),
      digest_with([](Change& c) { c.page(weights(0, 0), 2); }),
      digest_with([](Change& c) { c.page(weights(0, 1), 1); }),
      digest_with([](Change& c) { c.page(weights(1, 0), 1); }),
      digest_with([](Change& c) { c.page(weights(0, 0, 1), 1); }),
      digest_with([](Change& c) {
        c.page({PageKind::state, 0, 0, 0}, 1);
      }),
      digest_with([](Change& c) { c.page(weights(0, 0), 1, shape_of(16, 4)); }),
      digest_with([](Change& c) { c.dense("a", {}); }),
      digest_with([](Change& c) { c.dense("b", {}); }),
      digest_with([](Change& c) { c.dense("a", bytes_of(1, 1)); }),
  };
  for (std::size_t i = 0; i < digests.size(); ++i) {
    for (std::size_t j = i + 1; j < digests.size(); ++j)
      EXPECT_NE(digests[i], digests[j]) << i << j;
  }
}

}  // namespace
}  // namespace perennial::storage::testing
