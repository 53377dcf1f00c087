// SPDX-License-Identifier: Apache-2.0
// RocksdbBackend: opening, closing, reading.
#include "rocksdb_backend.h"

#include <rocksdb/convenience.h>

#include <system_error>
#include <utility>

#include "env_files.h"
#include "keys.h"
#include "rocksdb_recovery.h"
#include "rocksdb_support.h"
#include "store_file_system.h"
#include "store_views.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;

RocksdbBackend::RocksdbBackend(StoreFolder folder, const RocksdbStoreOptions& options,
                               StoreSeam seam, std::unique_ptr<StoreLock> lock)
    : folder_(std::move(folder)),
      options_(options),
      seam_(std::move(seam)),
      owned_env_(make_store_env(seam_.env != nullptr ? *seam_.env : *rocksdb::Env::Default(),
                                ManifestEnd::cut)),
      env_(owned_env_.get()),
      lock_(std::move(lock)),
      tables_(env_->GetFileSystem(), options.direct_reads) {}

RocksdbBackend::~RocksdbBackend() {
  abandon();
  close_database();
}

RocksdbBackend::FilesPtr RocksdbBackend::commit_files() const {
  const MutexLock lock(mutex_);
  return files_;
}

void RocksdbBackend::set_files(CommitFiles files) {
  auto fresh = std::make_shared<const CommitFiles>(std::move(files));
  {
    const MutexLock lock(mutex_);
    files_.swap(fresh);
  }
  tables_.keep_only(nullptr);  // the names of files that came to nothing are given out again
}

Status RocksdbBackend::refresh_files(rocksdb::DB& db) {
  // Listed under the mutex, so that an older list never replaces a newer one.
  const MutexLock lock(mutex_);
  Result<CommitFiles> files = list_commit_files(db, folder_.db());
  if (!files.ok()) return files.status();
  files_ = std::make_shared<const CommitFiles>(std::move(*files));
  return {};
}

void RocksdbBackend::add_file(CommitFile file) {
  const MutexLock lock(mutex_);
  if (last_commit_of(*files_) >= file.last_commit) return;  // a rewrite listed it meanwhile
  files_ = std::make_shared<const CommitFiles>(files_->with(std::move(file)));
}

Status RocksdbBackend::closed_why() const {
  const MutexLock lock(mutex_);
  return closed_why_;
}

void RocksdbBackend::set_closed_why(Status why) {
  const MutexLock lock(mutex_);
  closed_why_ = std::move(why);
}

rocksdb::Options RocksdbBackend::database_options() const {
  rocksdb::Options options = make_rocksdb_options(env_);
  options.use_direct_reads = options_.direct_reads;
  options.compaction_filter_factory = filters_;
  options.listeners = {listener_};
  return options;
}

Status RocksdbBackend::create_database() {
  rocksdb::Options options = make_rocksdb_options(env_);
  options.create_if_missing = true;
  options.error_if_exists = true;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, folder_.db().string(), &db);
  std::unique_ptr<rocksdb::DB> owner(db);
  if (status.ok()) return from_rocksdb(owner->Close(), folder_.db().string());
  return from_rocksdb(status, folder_.db().string());
}

Status RocksdbBackend::open_to_look() {
  if (options_.direct_reads) {
    if (Status status = check_direct_reads(folder_.format()); !status.ok()) return status;
  }
  Result<Inspection> inspection = inspect_store(folder_, env_);
  if (!inspection.ok()) return inspection.status();
  db_ = std::move(inspection->db);
  writable_ = false;
  set_files(std::move(inspection->files));
  next_ = std::move(inspection->next);
  open_gate();
  return {};
}

Status RocksdbBackend::open_database() {
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(database_options(), folder_.db().string(), &db);
  if (!status.ok()) return from_rocksdb(status, folder_.db().string());
  db_.reset(db);
  writable_ = true;
  suspect_ = false;
  filters_->welcome();
  return refresh_files(*db_);
}

void RocksdbBackend::close_database() {
  gate_.shut();
  if (db_ == nullptr) return;
  if (!lock_->is_owner()) {
    (void)db_.release();  // a forked child has none of the threads that closing waits for
    return;
  }
  filters_->stop();
  if (writable_) rocksdb::CancelAllBackgroundWork(db_.get(), /*wait=*/false);
  gate_.drain();
  // Nothing is buffered, so a failure to close loses nothing.
  if (const rocksdb::Status status = db_->Close(); !status.ok()) {
    set_closed_why(from_rocksdb(status, folder_.db().string()));
  }
  db_.reset();
}

// RocksDB starts a log with every opening and keeps it until a flush, which never comes: commits do
// not pass through logs. Empty ones would pile up.
void RocksdbBackend::remove_empty_logs() {
  std::error_code code;
  std::vector<fs::path> logs;
  for (const auto& entry : fs::directory_iterator(folder_.db(), code)) {
    if (entry.path().extension() == ".log" && entry.file_size(code) == 0 && !code) {
      logs.push_back(entry.path());
    }
  }
  for (const fs::path& path : logs) remove_one(*env_, path);
}

Status RocksdbBackend::open_to_write() {
  seam_.enter(Phase::recover);
  std::optional<fs::path> next = std::exchange(next_, std::nullopt);
  close_database();
  Status status = add_and_open(std::move(next));
  if (!status.ok()) {
    close_database();
    set_closed_why(status);
  }
  open_gate();
  if (status.ok()) seam_.enter(Phase::idle);
  return status;
}

Status RocksdbBackend::add_and_open(std::optional<fs::path> next) {
  const std::uint64_t last = last_commit();
  if (next && *next != folder_.staged(last + 1)) {
    // Opening deletes what the manifest does not list; the link in stage/ keeps it.
    remove_one(*env_, folder_.staged(last + 1));
    if (Status status = link_file(*env_, *next, folder_.staged(last + 1)); !status.ok()) {
      return status;
    }
  }
  clear_stage(last, next ? std::optional(last + 1) : std::nullopt);
  remove_empty_logs();
  sweep_views(folder_, *env_);
  if (Status status = open_database(); !status.ok()) return status;
  if (next) {
    if (Status status = ingest(last + 1, nullptr); !status.ok()) return status;
    clear_stage(last + 1, std::nullopt);
  }
  return {};
}

Status RocksdbBackend::look_and_open(std::uint64_t before) {
  {
    Result<Inspection> inspection = inspect_store(folder_, env_);
    if (!inspection.ok()) return inspection.status();
    const std::uint64_t last = last_commit_of(inspection->files);
    if (last < before || last > before + 1) {
      return error(StatusCode::corruption, folder_.db().string(), ": had commits up to ", before,
                   ", has up to ", last, " after reopening");
    }
    set_files(std::move(inspection->files));
  }
  // A staged commit was reported as failed, or is being looked for: it is not added.
  if (Status status = add_and_open(std::nullopt); !status.ok()) return status;
  // What was reported as failed must not come back with a power cut.
  if (Status status = sync_folder(*env_, folder_.stage()); !status.ok()) return status;
  return sync_folder(*env_, folder_.db());
}

Status RocksdbBackend::reopen_and_look(InQuestion what) {
  seam_.enter(Phase::recover);
  const std::uint64_t before = last_commit();
  close_database();
  ++reopens_;
  Status status = look_and_open(before);
  if (!status.ok()) {
    close_database();
    status = error(status.code(), folder_.root.string(),
                   " was closed after an error and could not be opened again: ", status.message());
    set_closed_why(status);
    if (what == InQuestion::nothing && open_to_look().ok()) (void)suspect(status);
  }
  open_gate();
  if (status.ok()) seam_.enter(Phase::idle);
  return status;
}

Status RocksdbBackend::reopen() {
  if (db_ == nullptr) return reopen_and_look(InQuestion::last_commit);
  if (!suspect_) return {};
  // The handle is still good for reading: it stays while there is nothing to put in its place.
  if (const Result<Inspection> look = inspect_store(folder_, env_); !look.ok()) {
    return error(look.status().code(), folder_.root.string(),
                 " must be opened anew after an error and cannot be: ", look.status().message());
  }
  return reopen_and_look(InQuestion::nothing);
}

Status RocksdbBackend::get(const std::string& key, const Visit& visit) const {
  const DbGate::Use db = gate_.enter();
  if (!db) return closed_why();
  return read_key(*db, key, visit);
}

Status RocksdbBackend::get_known(const std::string& key, std::size_t value_bytes,
                                 const Visit& visit) const {
  const DbGate::Use db = gate_.enter();
  if (!db) return closed_why();
  const std::uint64_t age = tables_.age();
  const FilesPtr files = commit_files();
  const CommitFile* file = find_file(*files, commit_of_key(key).value_or(0));
  if (file != nullptr && tables_.read(age, file->path, key, value_bytes, visit)) {
    return {};
  }
  return read_key(*db, key, visit);
}

std::vector<Backend::Lease> RocksdbBackend::leases() const { return sweep_views(folder_, *env_); }

}  // namespace perennial::storage
