// SPDX-License-Identifier: Apache-2.0
// RocksdbBackend: one commit is one sorted file, built in stage/ and ingested into db/.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/sst_file_writer.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "backend.h"
#include "rocksdb_recovery.h"
#include "rocksdb_store_internal.h"
#include "store_folder.h"
#include "store_lock.h"

namespace perennial::storage {

class RocksdbBackend final : public Backend {
 public:
  RocksdbBackend(StoreFolder folder, StoreSeam seam, std::unique_ptr<StoreLock> lock);
  ~RocksdbBackend() override;

  // Makes an empty database in db/.
  Status create_database();
  // Opens for reading only and changes nothing, so that what is damaged is found first.
  Status open_to_look();
  // Opens for writing what open_to_look() found, and adds a whole commit that was left in stage/.
  Status open_to_write();
  void keep_lock() { lock_->keep(); }

  Status get(const std::string& key, const Visit& visit) const override;
  std::uint64_t last_commit() const override { return files_.size(); }
  std::string file_of(std::uint64_t commit) const override;
  std::uint64_t file_bytes(std::uint64_t commit) const override;
  Status begin(std::uint64_t commit, std::uint64_t bytes) override;
  Status put(const std::string& key, std::span<const std::byte> head,
             std::span<const std::byte> body) override;
  Status publish() override;
  void abandon() override;
  bool closed() const override { return db_ == nullptr; }
  Status reopen() override;
  std::uint64_t reopens() const override { return reopens_; }
  void verify_files(std::vector<Damage>& damage) const override;
  std::filesystem::path scratch_folder() const override { return folder_.stage(); }
  Result<std::uint64_t> size_bytes() const override;

 private:
  Status open_database();
  void close_database();
  void clear_stage(std::optional<std::uint64_t> keep, std::optional<std::uint64_t> also_keep);
  Status finish_file(rocksdb::ExternalSstFileInfo& info);
  // Hands the staged file of a commit to RocksDB. `digest` may be empty: then it is computed.
  Status ingest(std::uint64_t commit, const std::string& digest);
  // Closes, looks at the store and opens it again without adding what is staged.
  Status reopen_and_look();

  StoreFolder folder_;
  StoreSeam seam_;
  rocksdb::Env* env_;
  std::unique_ptr<StoreLock> lock_;  // outlives db_
  std::unique_ptr<rocksdb::DB> db_;
  CommitFiles files_;
  std::optional<std::filesystem::path> next_;
  Status closed_why_{StatusCode::io_error, "the store is not open"};

  std::unique_ptr<rocksdb::SstFileWriter> writer_;
  std::uint64_t building_ = 0;
  std::string value_;
  std::uint64_t reopens_ = 0;
};

}  // namespace perennial::storage
