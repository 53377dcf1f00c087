// SPDX-License-Identifier: Apache-2.0
// RocksdbBackend: building the file of a commit and ingesting it.
#include <system_error>

#include "rocksdb_backend.h"
#include "rocksdb_support.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

// Left free beside the commit's file: manifest, directory blocks, RocksDB's log.
constexpr std::uint64_t kSpareBytes = std::uint64_t{4} << 20;

}  // namespace

void RocksdbBackend::clear_stage(std::optional<std::uint64_t> keep,
                                 std::optional<std::uint64_t> also_keep) {
  std::error_code code;
  std::vector<fs::path> unwanted;
  for (const auto& entry : fs::directory_iterator(folder_.stage(), code)) {
    if (keep && entry.path() == folder_.staged(*keep)) continue;
    if (also_keep && entry.path() == folder_.staged(*also_keep)) continue;
    unwanted.push_back(entry.path());
  }
  for (const fs::path& path : unwanted) fs::remove_all(path, code);
}

Status RocksdbBackend::begin(std::uint64_t commit, std::uint64_t bytes) {
  if (db_ == nullptr) return closed_why_;
  if (!lock_->is_owner()) {
    return error(StatusCode::busy, folder_.root.string(), ": opened before this process forked");
  }
  std::uint64_t free = 0;
  const rocksdb::Status space = env_->GetFreeSpace(folder_.root.string(), &free);
  if (space.ok() && free < bytes + kSpareBytes) {
    return error(StatusCode::no_space, folder_.root.string(), ": commit ", commit, " needs ",
                 bytes + kSpareBytes, " bytes, the file system has ", free);
  }
  seam_.enter(Phase::build);
  std::error_code ignored;
  fs::remove(folder_.building(commit), ignored);
  const rocksdb::Options options = make_inspection_options(env_);
  writer_ = std::make_unique<rocksdb::SstFileWriter>(rocksdb::EnvOptions(options), options, nullptr,
                                                     /*invalidate_page_cache=*/false);
  building_ = commit;
  const std::string path = folder_.building(commit).string();
  Status status = from_rocksdb(writer_->Open(path), path);
  if (!status.ok()) abandon();
  return status;
}

Status RocksdbBackend::put(const std::string& key, std::span<const std::byte> head,
                           std::span<const std::byte> body) {
  rocksdb::Slice slice(reinterpret_cast<const char*>(body.data()), body.size());
  if (!head.empty()) {
    value_.assign(reinterpret_cast<const char*>(head.data()), head.size());
    value_.append(slice.data(), slice.size());
    slice = value_;
  }
  return from_rocksdb(writer_->Put(key, slice), folder_.building(building_).string());
}

void RocksdbBackend::abandon() {
  if (writer_ == nullptr) return;
  writer_.reset();
  std::error_code ignored;
  fs::remove(folder_.building(building_), ignored);
  seam_.enter(Phase::idle);
}

Status RocksdbBackend::finish_file(rocksdb::ExternalSstFileInfo& info) {
  const std::string path = folder_.building(building_).string();
  if (Status status = from_rocksdb(writer_->Finish(&info), path); !status.ok()) return status;
  const std::string staged = folder_.staged(building_).string();
  return from_rocksdb(env_->RenameFile(path, staged), staged);
}

Status RocksdbBackend::ingest(std::uint64_t commit, const std::string& digest) {
  const std::string link = folder_.ingesting(commit).string();
  if (Status status = from_rocksdb(env_->LinkFile(folder_.staged(commit).string(), link), link);
      !status.ok()) {
    return status;
  }
  rocksdb::IngestExternalFileArg argument;
  argument.column_family = db_->DefaultColumnFamily();
  argument.external_files = {link};
  argument.options.move_files = true;
  argument.options.failed_move_fall_back_to_copy = false;
  argument.options.snapshot_consistency = true;
  argument.options.allow_global_seqno = true;
  argument.options.allow_blocking_flush = false;
  argument.options.write_global_seqno = false;
  argument.options.fail_if_not_bottommost_level = true;
  argument.options.verify_file_checksum = false;  // it was computed from what was written
  if (!digest.empty()) {
    argument.files_checksums = {digest};
    argument.files_checksum_func_names = {kFileDigestName};
  }
  seam_.enter(Phase::ingest);
  const rocksdb::Status ingested = db_->IngestExternalFiles({argument});
  std::error_code ignored;
  fs::remove(link, ignored);
  if (!ingested.ok()) return from_rocksdb(ingested, folder_.staged(commit).string());
  Result<CommitFiles> files = list_commit_files(*db_, folder_);
  if (!files.ok()) return files.status();
  files_ = std::move(*files);
  return {};
}

Status RocksdbBackend::publish() {
  const std::uint64_t commit = building_;
  seam_.enter(Phase::sync);
  rocksdb::ExternalSstFileInfo info;
  Status status = finish_file(info);
  if (!status.ok()) {
    abandon();
    std::error_code ignored;
    fs::remove(folder_.staged(commit), ignored);
    return status;
  }
  writer_.reset();
  status = ingest(commit, info.file_checksum);
  if (!status.ok()) {
    // The commit may be there or not, and the handle is not safe to use any more.
    if (Status reopened = reopen_and_look(); !reopened.ok()) {
      return error(reopened.code(), "commit ", commit,
                   " may or may not be there: ", status.message(), "; then ", reopened.message());
    }
    if (last_commit() < commit) return status;
  }
  std::error_code ignored;
  fs::remove(folder_.staged(commit - 1), ignored);
  seam_.enter(Phase::idle);
  return {};
}

}  // namespace perennial::storage
