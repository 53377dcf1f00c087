// SPDX-License-Identifier: Apache-2.0
// Looks at a store without changing it, and finds what a crash or a damaged manifest left undone.
#pragma once

#include <rocksdb/db.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "perennial/storage/status.h"
#include "store_folder.h"

namespace perennial::storage {

// The file of one commit, as the manifest lists it.
struct CommitFile {
  std::filesystem::path path;
  std::uint64_t size = 0;
  std::string digest_name;
  std::string digest;
};

using CommitFiles = std::map<std::uint64_t, CommitFile>;

// The files of every commit of an open database: one each, 1 .. last without a gap; corruption
// otherwise.
Result<CommitFiles> list_commit_files(rocksdb::DB& db, const StoreFolder& folder);

struct Inspection {
  std::unique_ptr<rocksdb::DB> db;  // read-only
  CommitFiles files;
  std::uint64_t last = 0;
  // A whole file of commit last + 1 that the manifest does not list: in stage/ or in db/.
  std::optional<std::filesystem::path> next;
};

// Opens the database read-only and compares the manifest with the files that are there. The one
// thing it may write is the link of exactly one missing file from its staged twin.
Result<Inspection> inspect_store(const StoreFolder& folder, rocksdb::Env* env);

}  // namespace perennial::storage
