// SPDX-License-Identifier: Apache-2.0
// Listing, finding and checking the table files of a store.
#include "commit_files.h"

#include <rocksdb/file_system.h>

#include <algorithm>
#include <memory>

#include "keys.h"
#include "rocksdb_support.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

// A file system in which no table file can be opened: what is left of a database is its manifest.
class WithoutTables final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  const char* Name() const override { return "perennial.WithoutTables"; }
  rocksdb::IOStatus NewRandomAccessFile(const std::string& name,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* debug) override {
    if (name.ends_with(".sst") || name.ends_with(".ldb")) {
      return rocksdb::IOStatus::PathNotFound("not looked at: ", name);
    }
    return FileSystemWrapper::NewRandomAccessFile(name, options, file, debug);
  }
};

std::string commits_text(const CommitFile& file) {
  return file.first_commit == file.last_commit
             ? text_of("commit ", file.first_commit)
             : text_of("commits ", file.first_commit, " to ", file.last_commit);
}

// What is wrong with one file; empty if nothing. `stop` is set when tick ends the reading.
std::string check_file(const CommitFile& entry, const rocksdb::FSRandomAccessFile& file,
                       const std::function<bool(std::uint64_t)>& tick, bool& stop) {
  std::vector<char> buffer(std::size_t{1} << 20);
  Hasher hasher;
  std::uint64_t size = 0;
  for (;;) {
    rocksdb::Slice found;
    const auto status =
        file.Read(size, buffer.size(), rocksdb::IOOptions(), &found, buffer.data(), nullptr);
    if (!status.ok()) return "read error";
    if (found.empty()) break;
    hasher.update(std::as_bytes(std::span(found.data(), found.size())));
    size += found.size();
    if (tick && !tick(found.size())) {
      stop = true;
      return "";
    }
  }
  if (size != entry.size) return text_of("expected ", entry.size, " bytes, found ", size);
  if (entry.digest_name != kFileDigestName || entry.digest != file_digest_value(hasher.finish())) {
    return "the file does not have the digest that the manifest lists";
  }
  return "";
}

}  // namespace

CommitFiles CommitFiles::with(CommitFile file) const {
  CommitFiles longer = *this;
  if (shared_ == nullptr || shared_->size() != size_ || shared_->capacity() == size_) {
    constexpr std::size_t kLeastRoom = 64;
    longer.shared_ = std::make_shared<std::vector<CommitFile>>();
    longer.shared_->reserve(std::max(2 * size_, kLeastRoom));
    longer.shared_->assign(begin(), end());
    longer.first_ = longer.shared_->data();
  }
  longer.shared_->push_back(std::move(file));
  ++longer.size_;
  return longer;
}

Result<CommitFiles> list_commit_files(rocksdb::DB& db, const fs::path& db_folder) {
  std::vector<rocksdb::LiveFileMetaData> live;
  db.GetLiveFilesMetaData(&live);
  std::vector<CommitFile> files;
  for (const rocksdb::LiveFileMetaData& file : live) {
    const fs::path path = db_folder / file.relative_filename;
    const auto first = commit_of_key(file.smallestkey);
    const auto last = commit_of_key(file.largestkey);
    if (!first || !last || *first == 0 || *last < *first) {
      return error(StatusCode::corruption, path.string(), ": not a file of commits");
    }
    files.push_back({path, *first, *last, file.size, file.level, file.smallestkey, file.largestkey,
                     file.file_checksum_func_name, file.file_checksum});
  }
  std::ranges::sort(files, {}, &CommitFile::first_commit);
  for (std::size_t i = 1; i < files.size(); ++i) {
    if (files[i].first_commit <= files[i - 1].last_commit) {
      return error(StatusCode::corruption, files[i].path.string(), ": its ", commits_text(files[i]),
                   " overlap those of ", files[i - 1].path.string());
    }
  }
  if (!files.empty() && (files.back().first_commit != files.back().last_commit ||
                         files.back().last_key != record_key(files.back().last_commit))) {
    return error(StatusCode::corruption, files.back().path.string(),
                 ": not the one file of the newest commit");
  }
  return CommitFiles(std::move(files));
}

Result<CommitFiles> list_manifest(const fs::path& db_folder, const fs::path& report_folder,
                                  const fs::path& manifest, rocksdb::Env* env) {
  const std::unique_ptr<rocksdb::Env> blind =
      rocksdb::NewCompositeEnv(std::make_shared<WithoutTables>(env->GetFileSystem()));
  rocksdb::Options options = make_rocksdb_options(blind.get());
  options.paranoid_checks = false;  // which would insist on the files
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(options, db_folder.string(), &db);
  const std::unique_ptr<rocksdb::DB> owner(db);
  if (!status.ok()) return from_rocksdb(status, manifest.string());
  return list_commit_files(*owner, report_folder);
}

std::vector<BackendFile> backend_files(const CommitFiles& files) {
  std::vector<BackendFile> result;
  result.reserve(files.size());
  for (const CommitFile& file : files) {
    result.push_back({file.path.string(), file.first_commit, file.last_commit, file.size});
  }
  return result;
}

const CommitFile* find_file(const CommitFiles& files, std::uint64_t commit) {
  const auto file = std::ranges::lower_bound(files, commit, {}, &CommitFile::last_commit);
  return file == files.end() || file->first_commit > commit ? nullptr : &*file;
}

BackendFile file_of_commit(const CommitFiles& files, std::uint64_t commit) {
  const CommitFile* file = find_file(files, commit);
  if (file == nullptr) return {};
  return {file->path.string(), file->first_commit, file->last_commit, file->size};
}

void verify_commit_files(const CommitFiles& files, const fs::path& folder,
                         rocksdb::FileSystem& system,
                         const std::function<bool(const CommitFile&)>& gone,
                         std::vector<Damage>& damage,
                         const std::function<bool(std::uint64_t)>& tick) {
  bool stop = false;
  for (const CommitFile& entry : files) {
    std::unique_ptr<rocksdb::FSRandomAccessFile> file;
    const bool opened = system
                            .NewRandomAccessFile((folder / entry.path.filename()).string(),
                                                 rocksdb::FileOptions(), &file, nullptr)
                            .ok();
    if (!opened && gone && gone(entry)) continue;
    const std::string what = opened ? check_file(entry, *file, tick, stop) : "cannot be opened";
    if (stop) return;
    if (what.empty()) continue;
    damage.push_back({.file = entry.path.string(),
                      .what = text_of("file of ", commits_text(entry), ": ", what),
                      .page = std::nullopt,
                      .commit = entry.first_commit == entry.last_commit ? entry.last_commit : 0});
  }
}

}  // namespace perennial::storage
