// SPDX-License-Identifier: Apache-2.0
// The seam through which tests reach into the durable store: another file system, and the phase a
// commit is in.
#pragma once

#include <rocksdb/env.h>

#include <filesystem>
#include <functional>
#include <memory>

#include "perennial/storage/rocksdb_store.h"

namespace perennial::storage {

enum class Phase { idle, build, sync, ingest, recover };

struct StoreSeam {
  rocksdb::Env* env = nullptr;          // nullptr: the system's; must outlive the store
  std::function<void(Phase)> on_phase;  // called as a phase begins
  void enter(Phase phase) const {
    if (on_phase) on_phase(phase);
  }
};

Result<std::unique_ptr<PageStore>> open_rocksdb_store_with(const std::filesystem::path& folder,
                                                           const RocksdbStoreOptions& options,
                                                           const StoreSeam& seam);

}  // namespace perennial::storage
