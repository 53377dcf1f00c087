// SPDX-License-Identifier: Apache-2.0
// CommitFiles: the table files of a store, as its manifest lists them.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/file_system.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend.h"
#include "perennial/storage/status.h"

namespace perennial::storage {

// A file of one commit or of several neighbouring ones.
struct CommitFile {
  std::filesystem::path path;
  std::uint64_t first_commit = 0;
  std::uint64_t last_commit = 0;
  std::uint64_t size = 0;
  int level = 0;
  std::string first_key;
  std::string last_key;
  std::string digest_name;
  std::string digest;
};

// Ascending, without overlap. The last one is the newest commit's alone, and ends with its record.
// Immutable; copies, and lists made by with(), share the files they have in common.
class CommitFiles {
 public:
  CommitFiles() = default;
  explicit CommitFiles(std::vector<CommitFile> files)
      : shared_(std::make_shared<std::vector<CommitFile>>(std::move(files))),
        first_(shared_->data()),
        size_(shared_->size()) {}

  // This list and one file more. Not at once for lists that share files. O(1), amortised.
  CommitFiles with(CommitFile file) const;

  const CommitFile* begin() const { return first_; }
  const CommitFile* end() const { return first_ + size_; }
  const CommitFile& operator[](std::size_t i) const { return first_[i]; }
  const CommitFile& back() const { return first_[size_ - 1]; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  // May hold more than this list's: what others appended, in room that was kept for it, so that
  // nothing moves.
  std::shared_ptr<std::vector<CommitFile>> shared_;
  const CommitFile* first_ = nullptr;
  std::size_t size_ = 0;
};

inline std::uint64_t last_commit_of(const CommitFiles& files) {
  return files.empty() ? 0 : files.back().last_commit;
}

// The files of an open database, as if it were in `db_folder`; corruption if they are not as above.
Result<CommitFiles> list_commit_files(rocksdb::DB& db, const std::filesystem::path& db_folder);

// The files that the manifest in `db_folder` lists, without a look at any of them: they may be
// damaged or missing. Messages name `manifest`, paths are in `report_folder`.
Result<CommitFiles> list_manifest(const std::filesystem::path& db_folder,
                                  const std::filesystem::path& report_folder,
                                  const std::filesystem::path& manifest, rocksdb::Env* env);

// Backend's view of them.
std::vector<BackendFile> backend_files(const CommitFiles& files);
// The file whose range holds a commit; null, an empty one, if there is none.
const CommitFile* find_file(const CommitFiles& files, std::uint64_t commit);
BackendFile file_of_commit(const CommitFiles& files, std::uint64_t commit);

// Reads every byte of every file (from `folder`) and compares size and digest with the manifest's.
// `gone` says whether a file that cannot be opened is no longer part of the store.
void verify_commit_files(const CommitFiles& files, const std::filesystem::path& folder,
                         rocksdb::FileSystem& system,
                         const std::function<bool(const CommitFile&)>& gone,
                         std::vector<Damage>& damage,
                         const std::function<bool(std::uint64_t)>& tick);

}  // namespace perennial::storage
