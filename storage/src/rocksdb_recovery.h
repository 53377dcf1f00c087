// SPDX-License-Identifier: Apache-2.0
// Looks at a store without changing it, and finds what a crash or a damaged manifest left undone.
#pragma once

#include <rocksdb/db.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "commit_files.h"
#include "perennial/storage/status.h"
#include "store_folder.h"

namespace perennial::storage {

struct Inspection {
  std::unique_ptr<rocksdb::DB> db;  // read-only
  CommitFiles files;
  // A whole file of the commit after the last that the manifest does not list: in stage/ or in db/.
  std::optional<std::filesystem::path> next;
};

// Opens the database read-only and compares the manifest with the files that are there. The one
// thing it may write is the link of exactly one missing file from its staged twin.
Result<Inspection> inspect_store(const StoreFolder& folder, rocksdb::Env* env);

// The file name in CURRENT. A flipped digit must not lead to another manifest unseen, so the name
// has to have the one form that RocksDB writes.
Result<std::filesystem::path> current_manifest(const StoreFolder& folder);

// corruption: the manifest lists commits up to `last`, yet `witness` is of a later one.
Status lost_commits(const std::filesystem::path& manifest, std::uint64_t last,
                    const std::filesystem::path& witness, std::uint64_t commit);

}  // namespace perennial::storage
