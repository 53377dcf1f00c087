// SPDX-License-Identifier: Apache-2.0
// The durable store: a folder with one RocksDB, written by one process at a time and read by any
// number.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

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
  // Reads pages past the operating system's cache: for pools larger than memory whose frames are
  // the cache. Where the file system cannot, opening fails with invalid_argument.
  bool direct_reads = false;
  // After a commit that dropped others, reclaims their space on a thread of its own.
  bool reclaim_in_background = true;
};

// Opens the store in `folder` ({db/, stage/, views/, runs/, FORMAT, LOCK}) for writing and takes
// its lock. The format is described byte by byte in docs/storage_format.md. busy: another process
// holds it (named in the message). version_mismatch: a newer format. not_found: no such store.
// invalid_argument: the folder holds something else, or mode create and a store is there. io_error:
// read-only folder, ... corruption: names the file. A folder that is not opened successfully is
// left as it was.
Result<std::unique_ptr<PageStore>> open_rocksdb_store(const std::filesystem::path& folder,
                                                      const RocksdbStoreOptions& options = {});

struct ViewOptions {
  // A snapshot name or commit number; empty = the newest commit.
  std::string snapshot = {};
  bool direct_reads = false;
};

// Opens one state of a store for reading only, also beside a process that writes to it; takes no
// lock. The view is a folder of hard links in views/ with a lease that ends with the process; what
// the writer commits, drops, reclaims or reopens meanwhile does not change it. Where that
// folder cannot be made (a read-only file system, no permission, a full disk) the view keeps the
// files open instead, and the writer does not know of it. A commit in flight may be seen a moment before it is
// acknowledged. Errors as for open_rocksdb_store; not_found also for a snapshot that is not there.
Result<std::unique_ptr<PageReader>> open_rocksdb_view(const std::filesystem::path& folder,
                                                      const ViewOptions& options = {});

}  // namespace perennial::storage
