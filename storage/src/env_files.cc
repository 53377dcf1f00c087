// SPDX-License-Identifier: Apache-2.0
// Files and folders through a rocksdb::Env.
#include "env_files.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <vector>

#include "os_error.h"
#include "rocksdb_support.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;

Status make_private_folder(rocksdb::Env& env, const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return {};
  if (Status status = from_rocksdb(env.CreateDir(path.string()), path.string()); !status.ok()) {
    return fs::is_directory(path, ignored) ? Status() : status;
  }
  if (::chmod(path.c_str(), 0700) != 0) return os_error(path, errno);
  return {};
}

Status sync_folder(rocksdb::Env& env, const fs::path& path) {
  std::unique_ptr<rocksdb::Directory> folder;
  rocksdb::Status status = env.NewDirectory(path.string(), &folder);
  if (status.ok()) status = folder->Fsync();
  return from_rocksdb(status, path.string());
}

Status link_file(rocksdb::Env& env, const fs::path& from, const fs::path& to) {
  return from_rocksdb(env.LinkFile(from.string(), to.string()), to.string());
}

Status rename_file(rocksdb::Env& env, const fs::path& from, const fs::path& to) {
  return from_rocksdb(env.RenameFile(from.string(), to.string()), to.string());
}

Status write_file(rocksdb::Env& env, const fs::path& path, const std::string& text) {
  std::unique_ptr<rocksdb::WritableFile> file;
  rocksdb::Status status = env.NewWritableFile(path.string(), &file, rocksdb::EnvOptions());
  if (status.ok()) status = file->Append(text);
  if (status.ok()) status = file->Sync();
  if (status.ok()) status = file->Close();
  return from_rocksdb(status, path.string());
}

rocksdb::IOStatus read_exactly(const rocksdb::FSRandomAccessFile& file, std::uint64_t offset,
                               std::span<char> into) {
  rocksdb::Slice found;
  const rocksdb::IOStatus status =
      file.Read(offset, into.size(), rocksdb::IOOptions(), &found, into.data(), nullptr);
  if (!status.ok()) return status;
  if (found.size() != into.size()) return rocksdb::IOStatus::IOError("short read");
  if (found.data() != into.data()) std::memcpy(into.data(), found.data(), into.size());
  return status;
}

void remove_one(rocksdb::Env& env, const fs::path& path) {
  std::error_code code;
  const fs::file_type type = fs::symlink_status(path, code).type();
  if (type == fs::file_type::not_found || type == fs::file_type::none) return;
  (type == fs::file_type::directory ? env.DeleteDir(path.string()) : env.DeleteFile(path.string()))
      .PermitUncheckedError();
}

void remove_all(rocksdb::Env& env, const fs::path& path) {
  std::error_code code;
  if (fs::symlink_status(path, code).type() == fs::file_type::directory) {
    std::vector<fs::path> inside;
    for (const auto& entry : fs::directory_iterator(path, code)) inside.push_back(entry.path());
    for (const fs::path& entry : inside) remove_all(env, entry);
  }
  remove_one(env, path);
}

}  // namespace perennial::storage
