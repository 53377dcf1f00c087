// SPDX-License-Identifier: Apache-2.0
// The fixture of the contract tests: an empty store of each implementation, and a model beside it.
#pragma once

#include <memory>
#include <string>

#include "perennial/storage/memory_store.h"
#include "perennial/storage/rocksdb_store.h"
#include "store_testing.h"

namespace perennial::storage::testing {

struct Implementation {
  std::string name;
  bool durable;
};

class StoreContract : public ::testing::TestWithParam<Implementation> {
 protected:
  void SetUp() override { open(OpenMode::create); }

  void open(OpenMode mode) {
    if (!GetParam().durable) {
      store = make_memory_store();
      return;
    }
    store.reset();
    auto result =
        open_rocksdb_store(folder.path() / "store",
                           {.mode = mode, .full_table_every = 3, .reclaim_in_background = false});
    ASSERT_TRUE(result.ok()) << result.status().to_string();
    store = std::move(*result);
  }
  // A durable store is closed and opened again; the memory store goes on.
  void reopen() {
    if (GetParam().durable) open(OpenMode::existing);
  }
  CommitInfo commit(Change& change) {
    const Result<CommitInfo> info = store->commit(change.get());
    EXPECT_TRUE(info.ok()) << info.status().to_string();
    return info.ok() ? *info : CommitInfo{};
  }

  TempFolder folder;
  std::unique_ptr<PageStore> store;
  Model model;
};

inline auto all_stores() {
  return ::testing::Values(Implementation{"memory", false}, Implementation{"rocksdb", true});
}
inline std::string store_name(const ::testing::TestParamInfo<Implementation>& info) {
  return info.param.name;
}

}  // namespace perennial::storage::testing
