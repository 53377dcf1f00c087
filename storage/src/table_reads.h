// SPDX-License-Identifier: Apache-2.0
// TableReads: values of table files by one read each, without RocksDB.
#pragma once

#include <rocksdb/file_system.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "backend.h"
#include "commit_files.h"
#include "perennial/storage/mutex.h"

namespace perennial::storage {

// Keeps the newest used table files open, with their indexes. Thread-safe; holds no lock while it
// reads. Cost of a read: one read of the file, and for a file that is not open opening it and
// four small reads.
class TableReads {
 public:
  TableReads(std::shared_ptr<rocksdb::FileSystem> system, bool direct)
      : system_(std::move(system)), direct_(direct) {}

  // Calls `visit` with the value of `key`, of `value_bytes` bytes, if the file at `path` holds it
  // in a block of its own and it can be read; true if `visit` then said ok. Otherwise, false:
  // nothing is known, whether it was called or not, and RocksDB has to be asked. The value's
  // checksum is not looked at: `visit` has to know the value. `age` is the age() from before the
  // file was found in the list of files.
  bool read(std::uint64_t age, const std::filesystem::path& path, const std::string& key,
            std::size_t value_bytes, const Backend::Visit& visit) const;

  // Forgets the files that `files` does not list; null: all. Reads at work keep theirs. To be
  // called after the list of files has changed.
  void keep_only(const CommitFiles* files);
  // Counts the calls of keep_only().
  std::uint64_t age() const { return age_; }

  // How many reads were answered.
  std::uint64_t answered() const { return answered_; }

 private:
  struct Table;
  using TablePtr = std::shared_ptr<const Table>;
  TablePtr table_at(std::uint64_t age, const std::string& path) const;
  TablePtr open(const std::string& path) const;

  std::shared_ptr<rocksdb::FileSystem> system_;
  bool direct_;
  mutable std::atomic<std::uint64_t> answered_{0};

  std::atomic<std::uint64_t> age_{0};  // changes under mutex_

  mutable Mutex mutex_;
  // Newest used first.
  struct Place {
    std::string path;
    TablePtr table;
  };
  mutable std::list<Place> places_ PERENNIAL_GUARDED_BY(mutex_);
  mutable std::unordered_map<std::string, std::list<Place>::iterator> by_path_
      PERENNIAL_GUARDED_BY(mutex_);
};

}  // namespace perennial::storage
