// SPDX-License-Identifier: Apache-2.0
// A file system that asks before every operation that changes the disk. Nothing is really synced:
// only a cut of the real power could tell.
#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

namespace perennial::storage::testing {

// Called with "append", "sync", "close", "create", "sync_folder", "rename", "link", "delete" or
// "make_folder" and the path; what it returns instead of ok is the operation's result. From several
// threads, one at a time.
using DiskHook = std::function<rocksdb::IOStatus(const std::string& what, const std::string& path)>;

struct DiskHooks {
  rocksdb::IOStatus ask(const std::string& what, const std::string& path) {
    const std::lock_guard lock(mutex);
    return hook ? hook(what, path) : rocksdb::IOStatus::OK();
  }
  void set(DiskHook fresh) {
    const std::lock_guard lock(mutex);
    hook = std::move(fresh);
  }
  std::mutex mutex;
  DiskHook hook;
  // What is left of the disk, in whole blocks: appends take of it, and fail when there is no more;
  // the last link of a file gives back what it took.
  std::atomic<std::uint64_t> free_bytes{std::uint64_t{1} << 40};
};

inline std::uint64_t in_blocks(std::uint64_t bytes) { return (bytes + 4095) / 4096 * 4096; }

class HookedFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  HookedFile(std::unique_ptr<rocksdb::FSWritableFile>&& file, std::string path, DiskHooks& hooks)
      : FSWritableFileOwnerWrapper(std::move(file)), path_(std::move(path)), hooks_(hooks) {}
  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           rocksdb::IODebugContext* debug) override {
    const auto fault = take_space(data.size());
    return fault.ok() ? FSWritableFileOwnerWrapper::Append(data, options, debug) : fault;
  }
  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           const rocksdb::DataVerificationInfo& info,
                           rocksdb::IODebugContext* debug) override {
    const auto fault = take_space(data.size());
    return fault.ok() ? FSWritableFileOwnerWrapper::Append(data, options, info, debug) : fault;
  }
  rocksdb::IOStatus Sync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return hooks_.ask("sync", path_);
  }
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return hooks_.ask("sync", path_);
  }
  rocksdb::IOStatus RangeSync(std::uint64_t, std::uint64_t, const rocksdb::IOOptions&,
                              rocksdb::IODebugContext*) override {
    return hooks_.ask("sync", path_);
  }
  rocksdb::IOStatus Close(const rocksdb::IOOptions& options,
                          rocksdb::IODebugContext* debug) override {
    const auto closed = FSWritableFileOwnerWrapper::Close(options, debug);
    const auto fault = hooks_.ask("close", path_);
    return fault.ok() ? closed : fault;
  }

 private:
  rocksdb::IOStatus take_space(std::size_t bytes) {
    auto fault = hooks_.ask("append", path_);
    if (!fault.ok()) return fault;
    const std::uint64_t more = in_blocks(size_ + bytes) - in_blocks(size_);
    if (more > hooks_.free_bytes) return rocksdb::IOStatus::NoSpace("No space left on device");
    hooks_.free_bytes -= more;
    size_ += bytes;
    return fault;
  }

  std::string path_;
  DiskHooks& hooks_;
  std::uint64_t size_ = 0;
};

// What RocksDB opens to sync a file that it has linked.
class HookedLink final : public rocksdb::FSRandomRWFileOwnerWrapper {
 public:
  HookedLink(std::unique_ptr<rocksdb::FSRandomRWFile>&& file, std::string path, DiskHooks& hooks)
      : FSRandomRWFileOwnerWrapper(std::move(file)), path_(std::move(path)), hooks_(hooks) {}
  rocksdb::IOStatus Sync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return hooks_.ask("sync", path_);
  }
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return hooks_.ask("sync", path_);
  }

 private:
  std::string path_;
  DiskHooks& hooks_;
};

class HookedFolder final : public rocksdb::FSDirectoryWrapper {
 public:
  HookedFolder(std::unique_ptr<rocksdb::FSDirectory>&& folder, std::string path, DiskHooks& hooks)
      : FSDirectoryWrapper(std::move(folder)), path_(std::move(path)), hooks_(hooks) {}
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override {
    return hooks_.ask("sync_folder", path_);
  }
  rocksdb::IOStatus FsyncWithDirOptions(const rocksdb::IOOptions&, rocksdb::IODebugContext*,
                                        const rocksdb::DirFsyncOptions&) override {
    return hooks_.ask("sync_folder", path_);
  }

 private:
  std::string path_;
  DiskHooks& hooks_;
};

class HookedFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  explicit HookedFileSystem(DiskHooks& hooks)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), hooks_(hooks) {}
  const char* Name() const override { return "HookedFileSystem"; }

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    if (auto fault = hooks_.ask("create", name); !fault.ok()) return fault;
    std::unique_ptr<rocksdb::FSWritableFile> inner;
    auto status = target()->NewWritableFile(name, options, &inner, debug);
    if (status.ok()) *file = std::make_unique<HookedFile>(std::move(inner), name, hooks_);
    return status;
  }
  rocksdb::IOStatus NewRandomRWFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSRandomRWFile> inner;
    auto status = target()->NewRandomRWFile(name, options, &inner, debug);
    if (status.ok()) *file = std::make_unique<HookedLink>(std::move(inner), name, hooks_);
    return status;
  }
  rocksdb::IOStatus NewDirectory(const std::string& name, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* folder,
                                 rocksdb::IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSDirectory> inner;
    auto status = target()->NewDirectory(name, options, &inner, debug);
    if (status.ok()) *folder = std::make_unique<HookedFolder>(std::move(inner), name, hooks_);
    return status;
  }
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override {
    const auto fault = hooks_.ask("rename", to);
    return fault.ok() ? target()->RenameFile(from, to, options, debug) : fault;
  }
  rocksdb::IOStatus LinkFile(const std::string& from, const std::string& to,
                             const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override {
    const auto fault = hooks_.ask("link", to);
    return fault.ok() ? target()->LinkFile(from, to, options, debug) : fault;
  }
  rocksdb::IOStatus DeleteFile(const std::string& name, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override {
    auto status = hooks_.ask("delete", name);
    struct stat before {};
    const bool last = ::lstat(name.c_str(), &before) == 0 && before.st_nlink == 1;
    if (status.ok()) status = target()->DeleteFile(name, options, debug);
    if (status.ok() && last)
      hooks_.free_bytes += in_blocks(static_cast<std::uint64_t>(before.st_size));
    return status;
  }
  rocksdb::IOStatus DeleteDir(const std::string& name, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* debug) override {
    const auto fault = hooks_.ask("delete", name);
    return fault.ok() ? target()->DeleteDir(name, options, debug) : fault;
  }
  // A log of messages is a file like the others.
  rocksdb::IOStatus NewLogger(const std::string& name, const rocksdb::IOOptions& options,
                              std::shared_ptr<rocksdb::Logger>* logger,
                              rocksdb::IODebugContext* debug) override {
    return FileSystem::NewLogger(name, options, logger, debug);
  }
  rocksdb::IOStatus GetFreeSpace(const std::string&, const rocksdb::IOOptions&, std::uint64_t* free,
                                 rocksdb::IODebugContext*) override {
    *free = hooks_.free_bytes;
    return rocksdb::IOStatus::OK();
  }
  rocksdb::IOStatus CreateDir(const std::string& name, const rocksdb::IOOptions& options,
                              rocksdb::IODebugContext* debug) override {
    const auto fault = hooks_.ask("make_folder", name);
    return fault.ok() ? target()->CreateDir(name, options, debug) : fault;
  }

 private:
  DiskHooks& hooks_;
};

}  // namespace perennial::storage::testing
