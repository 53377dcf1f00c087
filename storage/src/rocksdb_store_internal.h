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

// idle to recover follow each other on the thread that commits. rewrite (files are being replaced
// or removed) and purge (they are; their old files are still there) begin on the one that reclaims.
enum class Phase { idle, build, sync, ingest, recover, rewrite, purge };

struct StoreSeam {
  rocksdb::Env* env = nullptr;          // nullptr: the system's; must outlive the store
  std::function<void(Phase)> on_phase;  // called as a phase begins, from two threads
  void enter(Phase phase) const {
    if (on_phase) on_phase(phase);
  }
};

Result<std::unique_ptr<PageStore>> open_rocksdb_store_with(const std::filesystem::path& folder,
                                                           const RocksdbStoreOptions& options,
                                                           const StoreSeam& seam);
Result<std::unique_ptr<PageReader>> open_rocksdb_view_with(const std::filesystem::path& folder,
                                                           const ViewOptions& options,
                                                           const StoreSeam& seam);

}  // namespace perennial::storage
