// SPDX-License-Identifier: Apache-2.0
// RocksdbBackend: building the file of a commit and ingesting it.
#include <filesystem>
#include <system_error>

#include "env_files.h"
#include "rocksdb_backend.h"
#include "rocksdb_support.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;

void RocksdbBackend::clear_stage(std::optional<std::uint64_t> keep,
                                 std::optional<std::uint64_t> also_keep) {
  std::error_code code;
  std::vector<fs::path> unwanted;
  for (const auto& entry : fs::directory_iterator(folder_.stage(), code)) {
    if (keep && entry.path() == folder_.staged(*keep)) continue;
    if (also_keep && entry.path() == folder_.staged(*also_keep)) continue;
    if (writer_ != nullptr && entry.path() == folder_.building(building_)) continue;
    unwanted.push_back(entry.path());
  }
  for (const fs::path& path : unwanted) remove_all(*env_, path);
}

Status RocksdbBackend::begin(std::uint64_t commit, std::uint64_t bytes) {
  if (db_ == nullptr) return closed_why();
  if (!lock_->is_owner()) {
    return error(StatusCode::busy, folder_.root.string(), ": opened before this process forked");
  }
  if (Status status = reopen(); !status.ok()) return status;
  std::uint64_t free = 0;
  const rocksdb::Status space = env_->GetFreeSpace(folder_.root.string(), &free);
  if (space.ok() && free < bytes) {
    return error(StatusCode::no_space, folder_.root.string(), ": commit ", commit, " needs ", bytes,
                 " bytes, the file system has ", free);
  }
  seam_.enter(Phase::build);
  remove_one(*env_, folder_.building(commit));
  const rocksdb::Options options = make_rocksdb_options(env_);
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
  remove_one(*env_, folder_.building(building_));
  seam_.enter(Phase::idle);
}

Status RocksdbBackend::finish_file(rocksdb::ExternalSstFileInfo& info) {
  const std::string path = folder_.building(building_).string();
  if (Status status = from_rocksdb(writer_->Finish(&info), path); !status.ok()) return status;
  return rename_file(*env_, path, folder_.staged(building_));
}

Status RocksdbBackend::ingest(std::uint64_t commit, const rocksdb::ExternalSstFileInfo* built) {
  const std::string link = folder_.ingesting(commit).string();
  if (Status status = link_file(*env_, folder_.staged(commit), link); !status.ok()) return status;
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
  if (built != nullptr) {
    argument.files_checksums = {built->file_checksum};
    argument.files_checksum_func_names = {kFileDigestName};
  }
  (void)listener_->take();
  seam_.enter(Phase::ingest);
  const rocksdb::Status ingested = db_->IngestExternalFiles({argument});
  remove_one(*env_, link);
  if (!ingested.ok()) return from_rocksdb(ingested, folder_.staged(commit).string());
  const fs::path name = listener_->take().filename();
  if (built == nullptr || name.empty()) return refresh_files(*db_);
  // Listing all files would take longer with every commit.
  CommitFile file;
  file.path = folder_.db() / name;
  file.first_commit = file.last_commit = commit;
  file.size = built->file_size;
  file.level = db_->NumberLevels() - 1;
  file.first_key = built->smallest_key;
  file.last_key = built->largest_key;
  file.digest_name = kFileDigestName;
  file.digest = built->file_checksum;
  add_file(std::move(file));
  return {};
}

Status RocksdbBackend::publish() {
  const std::uint64_t commit = building_;
  if (Status status = reopen(); !status.ok()) {
    abandon();
    return status;
  }
  seam_.enter(Phase::sync);
  rocksdb::ExternalSstFileInfo info;
  Status status = finish_file(info);
  if (!status.ok()) {
    abandon();
    remove_one(*env_, folder_.staged(commit));
    return status;
  }
  writer_.reset();
  status = ingest(commit, &info);
  if (!status.ok()) {
    // The commit may be there or not, and the handle is not safe to use any more.
    if (Status reopened = reopen_and_look(InQuestion::last_commit); !reopened.ok()) {
      return error(reopened.code(), "commit ", commit,
                   " may or may not be there: ", status.message(), "; then ", reopened.message());
    }
    if (last_commit() < commit) return status;
  }
  remove_one(*env_, folder_.staged(commit - 1));
  seam_.enter(Phase::idle);
  return {};
}

}  // namespace perennial::storage
