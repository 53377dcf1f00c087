// SPDX-License-Identifier: Apache-2.0
// The durable store: a folder with one RocksDB, opened by one process at a time.
#pragma once

#include <filesystem>
#include <memory>

#include "perennial/storage/page_store.h"

namespace perennial::storage {

enum class OpenMode {
  create,    // the folder must not exist or be empty
  existing,  // the folder must hold a store
  either,    // create it where there is none
};

struct RocksdbStoreOptions {
  OpenMode mode = OpenMode::existing;
  // A record carries the whole page table every so many commits (1 or more), so that opening reads
  // at most that many records back. Not part of the format.
  std::uint32_t full_table_every = 64;
};

// Opens the store in `folder` ({db/, stage/, runs/, FORMAT, LOCK}) and takes its lock. The format
// is described byte by byte in docs/storage_format.md. busy: another process holds it (named in the
// message). version_mismatch: a newer format. not_found: no such store. invalid_argument: the
// folder holds something else, or mode create and a store is there. io_error: read-only folder, ...
// corruption: names the file. A folder that is not opened successfully is left as it was.
Result<std::unique_ptr<PageStore>> open_rocksdb_store(const std::filesystem::path& folder,
                                                      const RocksdbStoreOptions& options = {});

}  // namespace perennial::storage
