// SPDX-License-Identifier: Apache-2.0
// RocksdbBackend: one commit is one sorted file, built in stage/ and ingested into db/.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/listener.h>
#include <rocksdb/sst_file_writer.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "backend.h"
#include "commit_files.h"
#include "db_gate.h"
#include "perennial/storage/mutex.h"
#include "rewrite_filter.h"
#include "rocksdb_store_internal.h"
#include "store_folder.h"
#include "store_lock.h"
#include "table_reads.h"

namespace perennial::storage {

// Remembers the name that the last ingested file got in db/. On the thread that ingests.
class IngestListener final : public rocksdb::EventListener {
 public:
  void OnExternalFileIngested(rocksdb::DB*,
                              const rocksdb::ExternalFileIngestionInfo& info) override {
    path_ = info.internal_file_path;
  }
  // Empty if there was none since it was last asked.
  std::filesystem::path take() { return std::exchange(path_, {}); }

 private:
  std::string path_;
};

// Thread-safety as Backend's: one thread commits and reopens, one rewrites and removes, any read.
// The thread that commits owns db_; the others use it through gate_.
class RocksdbBackend final : public Backend {
 public:
  RocksdbBackend(StoreFolder folder, const RocksdbStoreOptions& options, StoreSeam seam,
                 std::unique_ptr<StoreLock> lock);
  ~RocksdbBackend() override;

  // Makes an empty database in db/.
  Status create_database();
  // Opens for reading only and changes nothing, so that what is damaged is found first.
  Status open_to_look();
  // Opens for writing what open_to_look() found, and adds a whole commit that was left in stage/.
  Status open_to_write();
  void keep_lock() { lock_->keep(); }
  rocksdb::Env& env() const { return *env_; }

  Status get(const std::string& key, const Visit& visit) const override;
  Status get_known(const std::string& key, std::size_t value_bytes,
                   const Visit& visit) const override;
  std::uint64_t single_reads() const override { return tables_.answered(); }
  std::uint64_t last_commit() const override { return last_commit_of(*commit_files()); }
  std::vector<BackendFile> files() const override { return backend_files(*commit_files()); }
  BackendFile file_of(std::uint64_t commit) const override {
    return file_of_commit(*commit_files(), commit);
  }
  Status begin(std::uint64_t commit, std::uint64_t bytes) override;
  Status put(const std::string& key, std::span<const std::byte> head,
             std::span<const std::byte> body) override;
  Status publish() override;
  void abandon() override;
  bool closed() const override { return db_ == nullptr || suspect_; }
  Status reopen() override;
  std::uint64_t reopens() const override { return reopens_; }
  Status rewrite(const std::vector<BackendFile>& files, const Keep& keep, std::uint64_t bytes,
                 std::uint64_t bytes_per_second, std::uint64_t& written) override;
  Status remove(const std::vector<BackendFile>& files) override;
  std::vector<Lease> leases() const override;
  void verify_files(std::vector<Damage>& damage,
                    const std::function<bool(std::uint64_t)>& tick) const override;
  std::string location() const override { return folder_.root.string(); }
  std::filesystem::path scratch_folder() const override { return folder_.stage(); }
  Result<std::uint64_t> size_bytes() const override;

 private:
  using FilesPtr = std::shared_ptr<const CommitFiles>;
  FilesPtr commit_files() const;
  void set_files(CommitFiles files);
  // Lists the files of `db` anew.
  Status refresh_files(rocksdb::DB& db);
  // Adds the file of the commit that was just ingested, unless it is listed already.
  void add_file(CommitFile file);
  Status closed_why() const;
  void set_closed_why(Status why);

  rocksdb::Options database_options() const;
  Status open_database();
  // Makes newcomers wait, ends a rewrite, waits for the readers and closes. open_gate() follows.
  void close_database();
  void open_gate() { gate_.open(db_.get()); }
  Status add_and_open(std::optional<std::filesystem::path> next);
  void clear_stage(std::optional<std::uint64_t> keep, std::optional<std::uint64_t> also_keep);
  void remove_empty_logs();
  Status finish_file(rocksdb::ExternalSstFileInfo& info);
  // Hands the staged file of a commit to RocksDB. `built` is what its writer said; where that is
  // not known, null.
  Status ingest(std::uint64_t commit, const rocksdb::ExternalSstFileInfo* built);
  // Closes, looks at the store and opens it again without adding what is staged. Where that fails
  // and no commit is in question, reads go on.
  enum class InQuestion { nothing, last_commit };
  Status reopen_and_look(InQuestion what);
  Status look_and_open(std::uint64_t before);

  // The listed files that `files` names, ascending. invalid_argument: no such file, or the newest.
  Result<CommitFiles> choose(const std::vector<BackendFile>& files, bool neighbours) const;
  // Runs `change` on the database while it deletes no file, then lets it delete `old` and waits
  // until that is done.
  Status change_files(rocksdb::DB& db, const CommitFiles& old, RewriteJob& job,
                      const std::function<rocksdb::Status()>& change);
  Status suspect(Status why);
  void wait_until_deleted(rocksdb::DB& db, const CommitFiles& old, const RewriteJob& job);

  StoreFolder folder_;
  RocksdbStoreOptions options_;
  StoreSeam seam_;
  std::unique_ptr<rocksdb::Env> owned_env_;
  rocksdb::Env* env_;
  std::unique_ptr<StoreLock> lock_;  // outlives db_
  std::shared_ptr<IngestListener> listener_ = std::make_shared<IngestListener>();
  std::shared_ptr<RewriteFilterFactory> filters_ = std::make_shared<RewriteFilterFactory>();
  std::unique_ptr<rocksdb::DB> db_;
  bool writable_ = false;  // db_ was opened for writing
  DbGate gate_;
  TableReads tables_;  // of what files_ lists
  std::optional<std::filesystem::path> next_;

  mutable Mutex mutex_;
  FilesPtr files_ PERENNIAL_GUARDED_BY(mutex_) = std::make_shared<const CommitFiles>();
  Status closed_why_ PERENNIAL_GUARDED_BY(mutex_) = Status(StatusCode::io_error,
                                                           "the store is not open");
  Status suspect_why_ PERENNIAL_GUARDED_BY(mutex_);

  std::unique_ptr<rocksdb::SstFileWriter> writer_;
  std::uint64_t building_ = 0;
  std::string value_;
  std::atomic<std::uint64_t> reopens_{0};

  Mutex maintenance_;  // one rewrite or removal at a time
  // One of them failed, as suspect_why_ says: the handle must not be written to any more.
  std::atomic<bool> suspect_{false};
};

}  // namespace perennial::storage
