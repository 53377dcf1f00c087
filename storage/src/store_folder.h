// SPDX-License-Identifier: Apache-2.0
// The folder of a durable store: its names, its FORMAT file, and how one is made.
#pragma once

#include <rocksdb/env.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "perennial/storage/rocksdb_store.h"
#include "perennial/storage/status.h"

namespace perennial::storage {

inline constexpr std::uint32_t kStoreFormatVersion = 2;

struct StoreFolder {
  std::filesystem::path root;

  std::filesystem::path db() const { return root / "db"; }
  std::filesystem::path stage() const { return root / "stage"; }
  std::filesystem::path views() const { return root / "views"; }
  std::filesystem::path runs() const { return root / "runs"; }
  std::filesystem::path lock() const { return root / "LOCK"; }
  std::filesystem::path format() const { return root / "FORMAT"; }
  std::filesystem::path format_draft() const { return root / "FORMAT.new"; }
  // A commit's file: while it is written, when it is whole, and the name that an ingest takes away.
  std::filesystem::path building(std::uint64_t commit) const;
  std::filesystem::path staged(std::uint64_t commit) const;
  std::filesystem::path ingesting(std::uint64_t commit) const;
};

// The commits of the whole files in stage/, ascending.
std::vector<std::uint64_t> staged_commits(const StoreFolder& folder);

enum class FolderState {
  absent,      // no such folder
  empty,       // nothing in it
  unfinished,  // a store whose creation was interrupted before anything could be stored
  store,       // has a FORMAT file
};

// invalid_argument: something else is there. corruption: a store without its FORMAT file.
Result<FolderState> look_at_folder(const StoreFolder& folder);

// What `state` means for `mode`: ok if opening may go on.
Status check_mode(const StoreFolder& folder, FolderState state, OpenMode mode);

// Reads and checks FORMAT: version_mismatch, corruption, io_error.
Status check_format(const StoreFolder& folder);

// Writes FORMAT durably; the store exists from then on.
Status write_format(const StoreFolder& folder, rocksdb::Env& env);

// Makes missing folders up to and including `path`, private to the user, and adds those it made.
Status make_folders(const std::filesystem::path& path, std::vector<std::filesystem::path>& made,
                    rocksdb::Env& env);

// Removes db/, stage/, views/, runs/ and FORMAT.new of a store that never came to be.
void remove_unfinished(const StoreFolder& folder, rocksdb::Env& env);

}  // namespace perennial::storage
