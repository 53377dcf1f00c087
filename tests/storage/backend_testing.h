// SPDX-License-Identifier: Apache-2.0
// A durable backend without the layer above: commits whose values follow from their keys.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "env_files.h"
#include "hooked_file_system.h"
#include "keys.h"
#include "record.h"
#include "rocksdb_backend.h"
#include "rocksdb_view.h"
#include "store_testing.h"

namespace perennial::storage::testing {

constexpr std::uint32_t kRows = 8;

inline std::string row_key(std::uint64_t commit, std::uint32_t row) {
  return page_key(commit, weights(row, 0));
}
inline Bytes row_value(std::uint64_t commit, std::uint32_t row, std::size_t size = 5000) {
  return bytes_of(commit * 1000 + row, size);
}
// The record of a commit of which nothing else matters.
inline Bytes record_value(std::uint64_t commit) {
  Record record;
  record.info.commit = commit;
  record.info.parent = commit - 1;
  return encode_record(record);
}
inline std::uint64_t row_of_key(const std::string& key) {
  return static_cast<unsigned char>(key[18]);  // the last byte of the row's number
}

class BackendFolder {
 public:
  explicit BackendFolder(std::filesystem::path root) : folder{std::move(root)} {}

  // Makes the folder and an empty database, or opens the one that is there.
  Result<std::unique_ptr<RocksdbBackend>> open(StoreSeam seam = {},
                                               RocksdbStoreOptions options = {}) {
    rocksdb::Env& env = seam.env != nullptr ? *seam.env : *rocksdb::Env::Default();
    const bool fresh = !std::filesystem::exists(folder.format());
    std::vector<std::filesystem::path> made;
    for (const auto& path : {folder.db(), folder.stage(), folder.views(), folder.runs()}) {
      if (Status status = make_folders(path, made, env); !status.ok()) return status;
    }
    auto lock = StoreLock::take(folder.lock());
    if (!lock.ok()) return lock.status();
    auto backend =
        std::make_unique<RocksdbBackend>(folder, options, std::move(seam), std::move(*lock));
    if (fresh) {
      if (Status status = backend->create_database(); !status.ok()) return status;
      if (Status status = write_format(folder, env); !status.ok()) return status;
    }
    if (Status status = backend->open_to_look(); !status.ok()) return status;
    if (Status status = backend->open_to_write(); !status.ok()) return status;
    backend->keep_lock();
    return backend;
  }

  StoreFolder folder;
};

// Commit last + 1: rows 0 .. kRows - 1 and the record.
inline Status add_commit(Backend& backend, std::size_t value_bytes = 5000) {
  const std::uint64_t commit = backend.last_commit() + 1;
  if (Status status = backend.begin(commit, kRows * value_bytes); !status.ok()) return status;
  Status status;
  for (std::uint32_t row = 0; row < kRows && status.ok(); ++row) {
    status = backend.put(row_key(commit, row), {}, row_value(commit, row, value_bytes));
  }
  if (status.ok()) status = backend.put(record_key(commit), {}, record_value(commit));
  if (status.ok()) return backend.publish();
  backend.abandon();
  return status;
}

// "": the row is there with its bytes; "gone"; or what is wrong.
inline std::string look_up(const Backend& backend, std::uint64_t commit, std::uint32_t row,
                           std::size_t value_bytes = 5000) {
  std::string found;
  const Status status = backend.get(row_key(commit, row), [&](std::span<const std::byte> value) {
    const Bytes expected = row_value(commit, row, value_bytes);
    if (!std::ranges::equal(value, expected)) found = "other bytes";
    return Status();
  });
  if (status.code() == StatusCode::not_found) return "gone";
  return status.ok() ? found : status.to_string();
}

// "1 2-4 7": the commits of each file.
inline std::string ranges(const Backend& backend) {
  std::string text;
  for (const BackendFile& file : backend.files()) {
    if (!text.empty()) text += " ";
    text += std::to_string(file.first_commit);
    if (file.last_commit != file.first_commit) text += "-" + std::to_string(file.last_commit);
  }
  return text;
}

// The files whose first commits are from `first` to `last`.
inline std::vector<BackendFile> files_between(const Backend& backend, std::uint64_t first,
                                              std::uint64_t last) {
  std::vector<BackendFile> chosen;
  for (const BackendFile& file : backend.files()) {
    if (file.first_commit >= first && file.first_commit <= last) chosen.push_back(file);
  }
  return chosen;
}

inline bool keep_all(const std::string&) { return true; }
// Rows with even numbers, and the records.
inline bool keep_even(const std::string& key) {
  return key[9] == kRecordTag || row_of_key(key) % 2 == 0;
}

inline Status rewrite(Backend& backend, std::uint64_t first, std::uint64_t last,
                      const Backend::Keep& keep, std::uint64_t bytes_per_second = 0) {
  std::uint64_t written = 0;
  return backend.rewrite(files_between(backend, first, last), keep, 0, bytes_per_second, written);
}

// A durable backend in a folder that goes with the test, and a disk that asks before it changes.
class RocksdbBackendTest : public ::testing::Test {
 protected:
  RocksdbBackendTest()
      : env_(rocksdb::NewCompositeEnv(std::make_shared<HookedFileSystem>(hooks_))) {}

  std::unique_ptr<RocksdbBackend> open(StoreSeam seam = {}, RocksdbStoreOptions options = {}) {
    auto backend = store_.open(std::move(seam), options);
    EXPECT_TRUE(backend.ok()) << backend.status().to_string();
    return backend.ok() ? std::move(*backend) : nullptr;
  }
  std::unique_ptr<RocksdbBackend> open_with(int commits, StoreSeam seam = {}) {
    auto backend = open(std::move(seam));
    for (int i = 0; i < commits; ++i) EXPECT_EQ(add_commit(*backend).to_string(), "ok");
    return backend;
  }
  StoreSeam hooked() { return {.env = env_.get(), .on_phase = {}}; }
  std::filesystem::path db() const { return store_.folder.db(); }
  std::set<std::string> tables() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(db())) {
      if (entry.path().extension() == ".sst") names.insert(entry.path().filename());
    }
    return names;
  }
  std::filesystem::path manifest() const {
    std::string name = read_text(db() / "CURRENT");
    name.pop_back();
    return db() / name;
  }
  // Every row of commits `first` to `last`; rows that `gone` names must not be there.
  static void expect_rows(const Backend& backend, std::uint64_t first, std::uint64_t last,
                          const std::function<bool(std::uint32_t)>& gone) {
    for (std::uint64_t commit = first; commit <= last; ++commit) {
      for (std::uint32_t row = 0; row < kRows; ++row) {
        EXPECT_EQ(look_up(backend, commit, row), gone(row) ? "gone" : "") << commit << " " << row;
      }
    }
  }
  static bool odd(std::uint32_t row) { return row % 2 == 1; }
  static bool none(std::uint32_t) { return false; }
  static bool all(std::uint32_t) { return true; }

  TempFolder temp_;
  DiskHooks hooks_;
  std::unique_ptr<rocksdb::Env> env_;
  BackendFolder store_{temp_.path() / "store"};
};

}  // namespace perennial::storage::testing
