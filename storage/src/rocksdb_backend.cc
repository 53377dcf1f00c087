// SPDX-License-Identifier: Apache-2.0
// RocksdbBackend: opening, reading, checking and sizing.
#include "rocksdb_backend.h"

#include <sys/stat.h>

#include <fstream>
#include <set>
#include <system_error>
#include <utility>

#include "rocksdb_support.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;

namespace {

// RocksDB starts a log with every opening and keeps it until a flush, which never comes: commits do
// not pass through logs. Empty ones would pile up.
void remove_empty_logs(const StoreFolder& folder) {
  std::error_code code;
  std::vector<fs::path> logs;
  for (const auto& entry : fs::directory_iterator(folder.db(), code)) {
    if (entry.path().extension() == ".log" && entry.file_size(code) == 0 && !code) {
      logs.push_back(entry.path());
    }
  }
  for (const fs::path& path : logs) fs::remove(path, code);
}

}  // namespace

RocksdbBackend::RocksdbBackend(StoreFolder folder, StoreSeam seam, std::unique_ptr<StoreLock> lock)
    : folder_(std::move(folder)),
      seam_(std::move(seam)),
      env_(seam_.env != nullptr ? seam_.env : rocksdb::Env::Default()),
      lock_(std::move(lock)) {}

RocksdbBackend::~RocksdbBackend() {
  abandon();
  close_database();
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
  Result<Inspection> inspection = inspect_store(folder_, env_);
  if (!inspection.ok()) return inspection.status();
  db_ = std::move(inspection->db);
  files_ = std::move(inspection->files);
  next_ = std::move(inspection->next);
  return {};
}

Status RocksdbBackend::open_database() {
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(make_rocksdb_options(env_), folder_.db().string(), &db);
  if (!status.ok()) return from_rocksdb(status, folder_.db().string());
  db_.reset(db);
  Result<CommitFiles> files = list_commit_files(*db_, folder_);
  if (!files.ok()) {
    close_database();
    return files.status();
  }
  files_ = std::move(*files);
  return {};
}

void RocksdbBackend::close_database() {
  if (db_ == nullptr) return;
  if (lock_->is_owner()) {
    // Nothing is buffered, so a failure to close loses nothing.
    if (const rocksdb::Status status = db_->Close(); !status.ok()) {
      closed_why_ = from_rocksdb(status, folder_.db().string());
    }
    db_.reset();
  } else {
    (void)db_.release();  // a forked child has none of the threads that closing waits for
  }
}

Status RocksdbBackend::open_to_write() {
  seam_.enter(Phase::recover);
  const std::uint64_t last = last_commit();
  const std::optional<fs::path> next = std::exchange(next_, std::nullopt);
  close_database();
  if (next && *next != folder_.staged(last + 1)) {
    // Opening deletes what the manifest does not list; the link in stage/ keeps it.
    std::error_code code;
    fs::remove(folder_.staged(last + 1), code);
    fs::create_hard_link(*next, folder_.staged(last + 1), code);
    if (code) return error(StatusCode::io_error, next->string(), ": ", code.message());
  }
  clear_stage(last, next ? std::optional(last + 1) : std::nullopt);
  remove_empty_logs(folder_);
  if (Status status = open_database(); !status.ok()) return status;
  if (next) {
    if (Status status = ingest(last + 1, ""); !status.ok()) {
      close_database();
      return status;
    }
    clear_stage(last + 1, std::nullopt);
  }
  seam_.enter(Phase::idle);
  return {};
}

Status RocksdbBackend::reopen_and_look() {
  seam_.enter(Phase::recover);
  const std::uint64_t before = last_commit();
  close_database();
  ++reopens_;
  Status status = open_to_look();
  if (status.ok() && (last_commit() < before || last_commit() > before + 1)) {
    status = error(StatusCode::corruption, folder_.db().string(), ": had ", before,
                   " commits, has ", last_commit(), " after reopening");
  }
  if (status.ok()) {
    next_.reset();  // its commit was reported as failed, or is being looked for: not added
    status = open_to_write();
  }
  // What was reported as failed must not come back with a power cut.
  if (status.ok()) status = sync_folder(folder_.stage());
  if (status.ok()) status = sync_folder(folder_.db());
  if (!status.ok()) {
    close_database();
    closed_why_ =
        error(status.code(), folder_.root.string(),
              " was closed after an error and could not be opened again: ", status.message());
    return closed_why_;
  }
  return {};
}

Status RocksdbBackend::reopen() { return closed() ? reopen_and_look() : Status(); }

Status RocksdbBackend::get(const std::string& key, const Visit& visit) const {
  if (db_ == nullptr) return closed_why_;
  rocksdb::PinnableSlice value;
  rocksdb::ReadOptions options;
  options.verify_checksums = true;
  const rocksdb::Status status = db_->Get(options, db_->DefaultColumnFamily(), key, &value);
  if (status.IsNotFound()) return {StatusCode::not_found, "not in the store"};
  if (!status.ok()) return from_rocksdb(status, "read failed");
  return visit(std::as_bytes(std::span(value.data(), value.size())));
}

std::string RocksdbBackend::file_of(std::uint64_t commit) const {
  const auto file = files_.find(commit);
  return file == files_.end() ? folder_.db().string() : file->second.path.string();
}

std::uint64_t RocksdbBackend::file_bytes(std::uint64_t commit) const {
  const auto file = files_.find(commit);
  return file == files_.end() ? 0 : file->second.size;
}

void RocksdbBackend::verify_files(std::vector<Damage>& damage) const {
  if (Status status = check_format(folder_); !status.ok()) {
    damage.push_back({folder_.format().string(), status.message()});
  }
  std::vector<char> buffer(std::size_t{1} << 20);
  for (const auto& [commit, entry] : files_) {
    const auto damaged = [&, commit = commit, path = entry.path.string()](const std::string& what) {
      damage.push_back({path, text_of("file of commit ", commit, ": ", what)});
    };
    std::ifstream file(entry.path, std::ios::binary);
    if (!file) {
      damaged("cannot be opened");
      continue;
    }
    Hasher hasher;
    std::uint64_t size = 0;
    while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())),
           file.gcount() > 0) {
      const auto count = static_cast<std::size_t>(file.gcount());
      hasher.update(std::as_bytes(std::span(buffer.data(), count)));
      size += count;
    }
    if (file.bad()) {
      damaged("read error");
    } else if (size != entry.size) {
      damaged(text_of("expected ", entry.size, " bytes, found ", size));
    } else if (entry.digest_name != kFileDigestName ||
               entry.digest != file_digest_value(hasher.finish())) {
      damaged("the file does not have the digest that the manifest lists");
    }
  }
}

Result<std::uint64_t> RocksdbBackend::size_bytes() const {
  std::set<std::pair<dev_t, ino_t>> seen;  // a staged link shares its bytes with the file in db/
  std::uint64_t bytes = 0;
  std::error_code code;
  for (fs::recursive_directory_iterator entry(folder_.root, code), end; !code && entry != end;
       entry.increment(code)) {
    struct stat status {};
    if (::lstat(entry->path().c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    if (seen.emplace(status.st_dev, status.st_ino).second) {
      bytes += static_cast<std::uint64_t>(status.st_size);
    }
  }
  if (code) return error(StatusCode::io_error, folder_.root.string(), ": ", code.message());
  return bytes;
}

}  // namespace perennial::storage
