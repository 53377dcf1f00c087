// SPDX-License-Identifier: Apache-2.0
// RocksdbBackend: replacing and removing files, checking and sizing them.
#include <rocksdb/convenience.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <system_error>
#include <thread>

#include "rocksdb_backend.h"
#include "rocksdb_support.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

bool any_is_there(const CommitFiles& files) {
  std::error_code code;
  return std::ranges::any_of(files,
                             [&](const CommitFile& file) { return fs::exists(file.path, code); });
}

// Ends the job at the factory, whatever happens.
class Running {
 public:
  explicit Running(RewriteFilterFactory& factory) : factory_(factory) {}
  ~Running() { factory_.end(); }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  RewriteFilterFactory& factory_;
};

// Adds the sizes of the files below `folder`, each inode once. What goes meanwhile does not count.
Status add_sizes(const fs::path& folder, std::set<std::pair<dev_t, ino_t>>& seen,
                 std::uint64_t& bytes) {
  std::error_code code;
  fs::directory_iterator entry(folder, code);
  if (code == std::errc::no_such_file_or_directory) return {};
  for (const fs::directory_iterator end; !code && entry != end; entry.increment(code)) {
    struct stat status {};
    if (::lstat(entry->path().c_str(), &status) != 0) continue;
    if (S_ISDIR(status.st_mode)) {
      if (Status inner = add_sizes(entry->path(), seen, bytes); !inner.ok()) return inner;
    } else if (S_ISREG(status.st_mode) && seen.emplace(status.st_dev, status.st_ino).second) {
      bytes += static_cast<std::uint64_t>(status.st_size);
    }
  }
  if (code) return error(StatusCode::io_error, folder.string(), ": ", code.message());
  return {};
}

}  // namespace

Result<CommitFiles> RocksdbBackend::choose(const std::vector<BackendFile>& wanted,
                                           bool neighbours) const {
  const FilesPtr files = commit_files();
  std::vector<CommitFile> chosen;
  std::set<std::size_t> places;
  for (const BackendFile& file : wanted) {
    const auto found = std::ranges::find(*files, file.first_commit, &CommitFile::first_commit);
    if (found == files->end() || found->last_commit != file.last_commit) {
      return error(StatusCode::invalid_argument, location(), ": has no file of commits ",
                   file.first_commit, " to ", file.last_commit);
    }
    if (found + 1 == files->end()) {
      return error(StatusCode::invalid_argument, found->path.string(),
                   ": the file of the newest commit is never rewritten");
    }
    places.insert(static_cast<std::size_t>(found - files->begin()));
  }
  if (neighbours && !places.empty() && *places.rbegin() - *places.begin() + 1 != places.size()) {
    return error(StatusCode::invalid_argument, location(), ": not neighbouring files");
  }
  for (const std::size_t place : places) chosen.push_back((*files)[place]);
  return CommitFiles(std::move(chosen));
}

Status RocksdbBackend::change_files(rocksdb::DB& db, const CommitFiles& old, RewriteJob& job,
                                    const std::function<rocksdb::Status()>& change) {
  if (suspect_) {
    const MutexLock lock(mutex_);
    return error(suspect_why_.code(), location(),
                 " must be opened anew after a failed rewrite: ", suspect_why_.message());
  }
  seam_.enter(Phase::rewrite);
  // When the manifest cannot be written, nobody knows which files it lists: all must stay.
  rocksdb::Status status = db.DisableFileDeletions();
  if (status.ok()) status = change();
  if (!status.ok()) {
    return suspect(job.stopped() ? error(StatusCode::io_error, location(), ": is being opened anew")
                                 : from_rocksdb(status, location()));
  }
  if (Status refreshed = refresh_files(db); !refreshed.ok()) return suspect(refreshed);
  tables_.keep_only(commit_files().get());
  seam_.enter(Phase::purge);
  if (status = db.EnableFileDeletions(/*force=*/false); !status.ok()) {
    return from_rocksdb(status, location());
  }
  wait_until_deleted(db, old, job);
  return {};
}

Status RocksdbBackend::suspect(Status why) {
  const MutexLock lock(mutex_);
  suspect_why_ = why;
  suspect_ = true;
  return why;
}

// A reader that was at work kept the old files; only another round deletes them.
void RocksdbBackend::wait_until_deleted(rocksdb::DB& db, const CommitFiles& old,
                                        const RewriteJob& job) {
  constexpr int kRounds = 100;
  for (int round = 0; round < kRounds && any_is_there(old) && !job.stopped(); ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (!db.DisableFileDeletions().ok() || !db.EnableFileDeletions(/*force=*/false).ok()) return;
  }
}

Status RocksdbBackend::rewrite(const std::vector<BackendFile>& wanted, const Keep& keep,
                               std::uint64_t bytes, std::uint64_t bytes_per_second,
                               std::uint64_t& written) {
  if (!lock_->is_owner()) {
    return error(StatusCode::busy, location(), ": opened before this process forked");
  }
  const MutexLock one_at_a_time(maintenance_);
  const DbGate::Use db = gate_.enter();
  if (!db) return closed_why();
  const Result<CommitFiles> old = choose(wanted, true);
  if (!old.ok()) return old.status();
  if (old->empty()) return {};
  std::vector<std::string> names;
  for (const CommitFile& file : *old) names.push_back(file.path.filename().string());
  std::uint64_t free = 0;
  if (env_->GetFreeSpace(folder_.root.string(), &free).ok() && free < bytes) {
    return error(StatusCode::no_space, location(), ": rewriting commits ",
                 old->begin()->first_commit, " to ", old->back().last_commit, " needs up to ",
                 bytes, " bytes, the file system has ", free);
  }
  const auto job = std::make_shared<RewriteJob>(&keep, bytes_per_second);
  if (!filters_->begin(job)) {
    return error(StatusCode::io_error, location(), ": is being opened anew");
  }
  const Running running(*filters_);
  return change_files(*db, *old, *job, [&] {
    rocksdb::CompactionOptions options;
    options.compression = rocksdb::kNoCompression;
    options.max_subcompactions = 1;
    rocksdb::CompactionJobInfo info;
    const rocksdb::Status status = db->CompactFiles(options, db->DefaultColumnFamily(), names,
                                                    old->back().level, -1, nullptr, &info);
    if (status.ok()) written += info.stats.total_output_bytes;
    return status;
  });
}

Status RocksdbBackend::remove(const std::vector<BackendFile>& wanted) {
  if (!lock_->is_owner()) {
    return error(StatusCode::busy, location(), ": opened before this process forked");
  }
  const MutexLock one_at_a_time(maintenance_);
  const DbGate::Use db = gate_.enter();
  if (!db) return closed_why();
  const Result<CommitFiles> old = choose(wanted, false);
  if (!old.ok()) return old.status();
  if (old->empty()) return {};
  // Only files that lie wholly within a range go, and no file overlaps another.
  std::vector<rocksdb::Slice> ends;
  for (const CommitFile& file : *old) {
    ends.emplace_back(file.first_key);
    ends.emplace_back(file.last_key);
  }
  std::vector<rocksdb::RangePtr> ranges;
  for (std::size_t i = 0; i < ends.size(); i += 2) ranges.emplace_back(&ends[i], &ends[i + 1]);
  const auto job = std::make_shared<RewriteJob>(nullptr, 0);
  if (!filters_->begin(job)) {
    return error(StatusCode::io_error, location(), ": is being opened anew");
  }
  const Running running(*filters_);
  Status status = change_files(*db, *old, *job, [&] {
    return rocksdb::DeleteFilesInRanges(&*db, db->DefaultColumnFamily(), ranges.data(),
                                        ranges.size(), /*include_end=*/true);
  });
  if (!status.ok()) return status;
  for (const CommitFile& file : *old) {
    if (file_of(file.last_commit).path == file.path) {
      return error(StatusCode::io_error, file.path.string(), ": RocksDB did not remove it");
    }
  }
  return {};
}

void RocksdbBackend::verify_files(std::vector<Damage>& damage,
                                  const std::function<bool(std::uint64_t)>& tick) const {
  if (Status status = check_format(folder_); !status.ok()) {
    damage.push_back({.file = folder_.format().string(),
                      .what = status.message(),
                      .page = std::nullopt,
                      .commit = 0});
  }
  const FilesPtr files = commit_files();
  const auto gone = [this](const CommitFile& file) {
    return file_of(file.last_commit).path != file.path;
  };
  verify_commit_files(*files, folder_.db(), *env_->GetFileSystem(), gone, damage, tick);
}

Result<std::uint64_t> RocksdbBackend::size_bytes() const {
  std::set<std::pair<dev_t, ino_t>> seen;  // links in stage/ and views/ share the bytes of db/
  std::uint64_t bytes = 0;
  if (Status status = add_sizes(folder_.root, seen, bytes); !status.ok()) return status;
  return bytes;
}

}  // namespace perennial::storage
