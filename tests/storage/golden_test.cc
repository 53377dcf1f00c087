// SPDX-License-Identifier: Apache-2.0
// A store as format 2 wrote it, kept in golden/format-2, is read by every later version.
//
// With PERENNIAL_WRITE_GOLDEN=FOLDER the test writes such a store there instead: for a new format,
// never to replace an old one.
#include <cstdlib>

#include "perennial/storage/memory_store.h"
#include "perennial/storage/rocksdb_store.h"
#include "store_testing.h"

namespace perennial::storage::testing {
namespace {

namespace fs = std::filesystem;

// Every kind of thing that the format has: whole pages and deltas, state pages, dense entries,
// snapshots, dropped commits, a restore, a folded file.
void write_history(PageStore& store, Model& model, Model& at_first) {
  const auto commit = [&](Change& change) {
    const auto info = store.commit(change.get());
    ASSERT_TRUE(info.ok()) << info.status().to_string();
  };
  Change first(model);
  first.page(weights(0, 0), 1, shape_of(16, 128)).page(weights(0, 1), 2).page(weights(7, 0, 3), 3);
  first.page({PageKind::state, 0, 0, 0}, 4, shape_of(16, 16)).dense("empty", {});
  first.dense("router", Bytes(1000, std::byte{7})).snapshot("first");
  first.request.retention = Retention{.keep_last = 4, .hourly = 2, .daily = 1};
  first.request.identity = StoreIdentity{digest_of(bytes_of(1, 16))};
  first.request.note = R"({"action":"created"})";
  commit(first);
  at_first = model;
  Change second(model);
  second.experts(weights(0, 0), 0b1001, 5).remove({PageKind::state, 0, 0, 0});
  second.dense("moments", bytes_of(6, 900)).remove_dense("empty");
  commit(second);
  Change third(model);
  commit(third.page(weights(0, 1), 7).snapshot("third"));
  ASSERT_TRUE(store.reclaim({.max_dead = 0, .fold_files = 2}).ok());
  ASSERT_TRUE(store.drop({2}, "dropped").ok());
  ASSERT_TRUE(store.restore({.commit = 3, .snapshot = "back"}).ok());
  Change last(model);
  commit(last.experts(weights(0, 0), 0b10, 8));
}

TEST(Golden, Format2IsReadForGood) {
  Model model;
  Model at_first;
  if (const char* folder = std::getenv("PERENNIAL_WRITE_GOLDEN")) {
    auto store = open_rocksdb_store(
        folder, {.mode = OpenMode::create, .full_table_every = 3, .reclaim_in_background = false});
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    write_history(**store, model, at_first);
    GTEST_SKIP() << "wrote " << folder;
  }
  // The models; the store in memory goes through the same history.
  auto memory = make_memory_store();
  write_history(*memory, model, at_first);

  TempFolder copy;  // opening writes
  fs::copy(PERENNIAL_GOLDEN_STORE, copy.path() / "store", fs::copy_options::recursive);
  for (const char* folder : {"stage", "views", "runs"}) {
    fs::create_directories(copy.path() / "store" / folder);
  }
  auto store = open_rocksdb_store(copy.path() / "store");
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  EXPECT_EQ(difference(**store, model), "");
  EXPECT_EQ((*store)->head()->commit, 6u);
  EXPECT_EQ((*store)->head()->state_digest, memory->head()->state_digest);
  EXPECT_EQ((*store)->identity(), (StoreIdentity{digest_of(bytes_of(1, 16))}));
  EXPECT_EQ((*store)->retention(), (Retention{.keep_last = 4, .hourly = 2, .daily = 1}));
  EXPECT_EQ(*(*store)->resolve("back"), 5u);
  EXPECT_EQ((*store)->at(2).status().code(), StatusCode::not_found);
  const auto first = (*store)->at(*(*store)->resolve("first"));
  ASSERT_TRUE(first.ok()) << first.status().to_string();
  EXPECT_EQ(difference(**first, at_first), "");
  EXPECT_EQ((*first)->head()->note, R"({"action":"created"})");
  const auto report = (*store)->verify();
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->damage.empty());
  Change next(model);
  ASSERT_TRUE((*store)->commit(next.page(weights(0, 2), 9).get()).ok());
  EXPECT_EQ(difference(**store, model), "");
}

}  // namespace
}  // namespace perennial::storage::testing
