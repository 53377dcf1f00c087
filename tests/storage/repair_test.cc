// SPDX-License-Identifier: Apache-2.0
// Damaged pages and dense entries come back from a copy, or older; nothing else is touched.
#include "perennial/storage/repair.h"

#include <algorithm>

#include "perennial/storage/copy.h"
#include "perennial/storage/memory_store.h"
#include "perennial/storage/rocksdb_store.h"
#include "store_testing.h"

namespace perennial::storage::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class RepairTest : public ::testing::Test {
 protected:
  void SetUp() override {
    open(OpenMode::create);
    Change first(model);
    // Pages of more than 4 KiB have a block of their own.
    for (std::uint32_t row = 0; row < 6; ++row) first.page(weights(row, 0), row, shape_of(16, 128));
    first.request.retention = Retention::all();
    ASSERT_TRUE(store->commit(first.dense("d", bytes_of(7, 5'000)).get()).ok());
    older = model;
    Change second(model);
    for (std::uint32_t row = 0; row < 4; ++row) {
      second.page(weights(row, 0), 100 + row, shape_of(16, 128));
    }
    ASSERT_TRUE(store->commit(second.dense("d", bytes_of(8, 5'000)).get()).ok());
  }
  void open(OpenMode mode) {
    store.reset();
    auto opened = open_rocksdb_store(folder.path() / "s", {.mode = mode});
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    store = std::move(*opened);
  }
  // Flips one byte of every place in the table files that holds these bytes.
  void damage(const Bytes& bytes) {
    store.reset();
    const std::string wanted(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    int found = 0;
    for (const auto& entry : fs::directory_iterator(folder.path() / "s" / "db")) {
      if (entry.path().extension() != ".sst") continue;
      std::string text = read_text(entry.path());
      for (auto at = text.find(wanted); at != std::string::npos; at = text.find(wanted, at + 1)) {
        std::fstream file(entry.path(), std::ios::binary | std::ios::in | std::ios::out);
        file.seekp(static_cast<std::streamoff>(at + wanted.size() / 2));
        file.put(static_cast<char>(text[at + wanted.size() / 2] ^ 1));
        ++found;
      }
    }
    ASSERT_EQ(found, 1);
    open(OpenMode::existing);
  }

  TempFolder folder;
  std::unique_ptr<PageStore> store;
  Model model;
  Model older;
};

TEST_F(RepairTest, AnIntactStoreIsLeftAlone) {
  const auto report = repair_store(*store);
  ASSERT_TRUE(report.ok());
  EXPECT_TRUE(report->repairs.empty());
  EXPECT_EQ(report->pages_read, 6u);
  EXPECT_EQ(report->commit.commit, 0u);
  EXPECT_EQ(store->head()->commit, 2u);
}

TEST_F(RepairTest, ACopyGivesTheVeryBytesBack) {
  auto copy = make_memory_store();
  ASSERT_TRUE(copy_state(*store, *copy).ok());
  damage(model.pages.at(weights(2, 0)).payload);
  damage(model.dense.at("d"));
  ASSERT_NE(difference(*store, model), "");
  const auto report = repair_store(*store, {.copy = copy.get()});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  ASSERT_EQ(report->repairs.size(), 2u);
  EXPECT_EQ(report->repairs[0].by, Repair::By::copy);
  EXPECT_THAT(report->repairs[0].what, HasSubstr("row 2"));
  EXPECT_THAT(report->repairs[0].found, HasSubstr(".sst"));
  EXPECT_EQ(report->repairs[1].by, Repair::By::copy);
  EXPECT_EQ(report->unrepaired(), 0u);
  EXPECT_EQ(report->commit.state_digest, copy->head()->state_digest);
  open(OpenMode::existing);
  EXPECT_EQ(difference(*store, model), "");
}

TEST_F(RepairTest, AnOlderVersionTakesThePlace) {
  damage(model.pages.at(weights(1, 0)).payload);
  const auto looked = repair_store(*store, {.dry_run = true});
  ASSERT_EQ(looked->repairs.size(), 1u);
  EXPECT_EQ(store->head()->commit, 2u);
  const auto report = repair_store(*store);
  ASSERT_TRUE(report.ok());
  ASSERT_EQ(report->repairs.size(), 1u);
  EXPECT_EQ(report->repairs[0].by, Repair::By::older);
  EXPECT_EQ(report->repairs[0].commit, 1u);
  model.pages[weights(1, 0)] = older.pages.at(weights(1, 0));
  EXPECT_EQ(difference(*store, model), "");
}

TEST_F(RepairTest, WhatCannotBeRepairedIsSaid) {
  damage(model.pages.at(weights(5, 0)).payload);  // has one version only
  damage(model.dense.at("d"));
  const auto report = repair_store(*store);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->repairs.size(), 2u);
  EXPECT_EQ(report->unrepaired(), 2u);
  EXPECT_EQ(report->commit.commit, 0u);
  EXPECT_EQ(store->head()->commit, 2u);
}

TEST_F(RepairTest, AnotherStoresCopyIsRefused) {
  auto other = make_memory_store();
  Model unrelated;
  Change change(unrelated);
  ASSERT_TRUE(other->commit(change.page(weights(0, 0), 1).get()).ok());
  EXPECT_EQ(repair_store(*store, {.copy = other.get()}).status().code(),
            StatusCode::invalid_argument);
}

}  // namespace
}  // namespace perennial::storage::testing
