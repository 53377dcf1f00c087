// SPDX-License-Identifier: Apache-2.0
// The RocksDB file system whose operations go through a TortureDisk.
#include <utility>

#include "torture_disk.h"

namespace perennial::storage::testing {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;
using Node = DiskModel::Node;

// Runs `action` as one change of the disk; `note` tells the model if it succeeded.
template <class Action, class Note>
IOStatus make_change(TortureDisk& disk, Action action, Note note) {
  const auto guard = disk.lock();
  const bool was_on = disk.powered().ok();
  IOStatus status = disk.change();
  if (!status.ok()) {
    return disk.hides_errors() && was_on && disk.powered().ok() ? IOStatus::OK() : status;
  }
  status = action();
  if (status.ok()) note(disk.model());
  return status;
}

const auto kNothing = [](DiskModel&) {};

// Writes, or half writes, `data` at `offset`; `write` does it.
template <class Write>
IOStatus write_bytes(TortureDisk& disk, Node node, std::uint64_t offset, const Slice& data,
                     Write write) {
  bool half = false;
  IOStatus fault = disk.change(&half);
  if (half) {
    const Slice part(data.data(), data.size() / 2);
    if (write(part).ok()) disk.model().written(node, offset, part.size());
  }
  if (!fault.ok()) {
    return disk.hides_errors() && disk.powered().ok() ? IOStatus::OK() : fault;
  }
  IOStatus status = write(data);
  if (status.ok()) disk.model().written(node, offset, data.size());
  return status;
}

class WritableFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  WritableFile(std::unique_ptr<rocksdb::FSWritableFile>&& file, TortureDisk& disk, std::string path,
               Node node)
      : FSWritableFileOwnerWrapper(std::move(file)),
        disk_(disk),
        path_(std::move(path)),
        node_(node) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* dbg) override {
    const auto guard = disk_.lock();
    return write_bytes(disk_, node_, disk_.model().size(node_), data, [&](const Slice& part) {
      return FSWritableFileOwnerWrapper::Append(part, options, dbg);
    });
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo&,
                  IODebugContext* dbg) override {
    return Append(data, options, dbg);
  }
  IOStatus PositionedAppend(const Slice& data, std::uint64_t offset, const IOOptions& options,
                            IODebugContext* dbg) override {
    const auto guard = disk_.lock();
    return write_bytes(disk_, node_, offset, data, [&](const Slice& part) {
      return FSWritableFileOwnerWrapper::PositionedAppend(part, offset, options, dbg);
    });
  }
  IOStatus PositionedAppend(const Slice& data, std::uint64_t offset, const IOOptions& options,
                            const rocksdb::DataVerificationInfo&, IODebugContext* dbg) override {
    return PositionedAppend(data, offset, options, dbg);
  }
  IOStatus Truncate(std::uint64_t size, const IOOptions& options, IODebugContext* dbg) override {
    return make_change(
        disk_, [&] { return FSWritableFileOwnerWrapper::Truncate(size, options, dbg); },
        [&](DiskModel& model) { model.truncated(node_, size); });
  }
  IOStatus Sync(const IOOptions&, IODebugContext*) override { return sync(); }
  IOStatus Fsync(const IOOptions&, IODebugContext*) override { return sync(); }
  IOStatus RangeSync(std::uint64_t, std::uint64_t, const IOOptions&, IODebugContext*) override {
    return make_change(
        disk_, [] { return IOStatus::OK(); }, kNothing);
  }

 private:
  IOStatus sync() {
    return make_change(
        disk_, [] { return IOStatus::OK(); },
        [&](DiskModel& model) {
          if (!disk_.skips_sync_of(path_)) model.synced(node_);
        });
  }

  TortureDisk& disk_;
  std::string path_;
  Node node_;
};

// What RocksDB opens to sync a file that it has linked.
class RandomRwFile final : public rocksdb::FSRandomRWFileOwnerWrapper {
 public:
  RandomRwFile(std::unique_ptr<rocksdb::FSRandomRWFile>&& file, TortureDisk& disk, std::string path,
               Node node)
      : FSRandomRWFileOwnerWrapper(std::move(file)),
        disk_(disk),
        path_(std::move(path)),
        node_(node) {}
  IOStatus Write(std::uint64_t offset, const Slice& data, const IOOptions& options,
                 IODebugContext* dbg) override {
    const auto guard = disk_.lock();
    return write_bytes(disk_, node_, offset, data, [&](const Slice& part) {
      return FSRandomRWFileOwnerWrapper::Write(offset, part, options, dbg);
    });
  }
  IOStatus Sync(const IOOptions&, IODebugContext*) override { return sync(); }
  IOStatus Fsync(const IOOptions&, IODebugContext*) override { return sync(); }

 private:
  IOStatus sync() {
    return make_change(
        disk_, [] { return IOStatus::OK(); },
        [&](DiskModel& model) {
          if (!disk_.skips_sync_of(path_)) model.synced(node_);
        });
  }

  TortureDisk& disk_;
  std::string path_;
  Node node_;
};

// Reads that fail or come back short.
IOStatus read_bytes(TortureDisk& disk, std::size_t& bytes) {
  const auto guard = disk.lock();
  bool half = false;
  const IOStatus status = disk.read(&half);
  if (half) bytes /= 2;
  return status;
}

class SequentialFile final : public rocksdb::FSSequentialFileOwnerWrapper {
 public:
  SequentialFile(std::unique_ptr<rocksdb::FSSequentialFile>&& file, TortureDisk& disk)
      : FSSequentialFileOwnerWrapper(std::move(file)), disk_(disk) {}
  IOStatus Read(std::size_t bytes, const IOOptions& options, Slice* result, char* scratch,
                IODebugContext* dbg) override {
    // A short read of a sequential file is its end, for POSIX and for RocksDB: a manifest that
    // ends early is damage, not a fault of reading, so only random access comes back short.
    std::size_t whole = bytes;
    const IOStatus fault = read_bytes(disk_, whole);
    if (!fault.ok()) return fault;
    if (whole != bytes) return IOStatus::IOError("Input/output error (injected)");
    return FSSequentialFileOwnerWrapper::Read(bytes, options, result, scratch, dbg);
  }

 private:
  TortureDisk& disk_;
};

class RandomAccessFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  RandomAccessFile(std::unique_ptr<rocksdb::FSRandomAccessFile>&& file, TortureDisk& disk)
      : FSRandomAccessFileOwnerWrapper(std::move(file)), disk_(disk) {}
  IOStatus Read(std::uint64_t offset, std::size_t bytes, const IOOptions& options, Slice* result,
                char* scratch, IODebugContext* dbg) const override {
    if (const IOStatus fault = read_bytes(disk_, bytes); !fault.ok()) return fault;
    return FSRandomAccessFileOwnerWrapper::Read(offset, bytes, options, result, scratch, dbg);
  }
  IOStatus MultiRead(rocksdb::FSReadRequest* requests, std::size_t count, const IOOptions& options,
                     IODebugContext* dbg) override {
    for (std::size_t i = 0; i < count; ++i) {
      requests[i].status = Read(requests[i].offset, requests[i].len, options, &requests[i].result,
                                requests[i].scratch, dbg);
    }
    return IOStatus::OK();
  }

 private:
  TortureDisk& disk_;
};

class Directory final : public rocksdb::FSDirectoryWrapper {
 public:
  Directory(std::unique_ptr<rocksdb::FSDirectory>&& directory, TortureDisk& disk, std::string path)
      : FSDirectoryWrapper(std::move(directory)), disk_(disk), path_(std::move(path)) {}
  IOStatus Fsync(const IOOptions&, IODebugContext*) override { return sync(); }
  IOStatus FsyncWithDirOptions(const IOOptions&, IODebugContext*,
                               const rocksdb::DirFsyncOptions&) override {
    return sync();
  }

 private:
  IOStatus sync() {
    return make_change(
        disk_, [] { return IOStatus::OK(); },
        [&](DiskModel& model) {
          if (!disk_.skips_folder_sync()) model.synced_folder(path_);
        });
  }

  TortureDisk& disk_;
  std::string path_;
};

class TortureFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  explicit TortureFileSystem(TortureDisk& disk)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), disk_(disk) {}
  const char* Name() const override { return "TortureFileSystem"; }

  IOStatus NewWritableFile(const std::string& name, const FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file,
                           IODebugContext* dbg) override {
    return open_to_write(name, file, true, [&](auto* inner) {
      return target()->NewWritableFile(name, options, inner, dbg);
    });
  }
  IOStatus ReopenWritableFile(const std::string& name, const FileOptions& options,
                              std::unique_ptr<rocksdb::FSWritableFile>* file,
                              IODebugContext* dbg) override {
    return open_to_write(name, file, false, [&](auto* inner) {
      return target()->ReopenWritableFile(name, options, inner, dbg);
    });
  }
  IOStatus ReuseWritableFile(const std::string&, const std::string&, const FileOptions&,
                             std::unique_ptr<rocksdb::FSWritableFile>*, IODebugContext*) override {
    return IOStatus::NotSupported("ReuseWritableFile");
  }
  IOStatus NewRandomRWFile(const std::string& name, const FileOptions& options,
                           std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                           IODebugContext* dbg) override {
    std::unique_ptr<rocksdb::FSRandomRWFile> inner;
    const auto guard = disk_.lock();
    if (IOStatus status = disk_.powered(); !status.ok()) return status;
    IOStatus status = target()->NewRandomRWFile(name, options, &inner, dbg);
    if (!status.ok()) return status;
    *file = std::make_unique<RandomRwFile>(std::move(inner), disk_, name, disk_.model().find(name));
    return status;
  }
  IOStatus NewSequentialFile(const std::string& name, const FileOptions& options,
                             std::unique_ptr<rocksdb::FSSequentialFile>* file,
                             IODebugContext* dbg) override {
    std::unique_ptr<rocksdb::FSSequentialFile> inner;
    IOStatus status = target()->NewSequentialFile(name, options, &inner, dbg);
    if (status.ok()) *file = std::make_unique<SequentialFile>(std::move(inner), disk_);
    return status;
  }
  IOStatus NewRandomAccessFile(const std::string& name, const FileOptions& options,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                               IODebugContext* dbg) override {
    std::unique_ptr<rocksdb::FSRandomAccessFile> inner;
    IOStatus status = target()->NewRandomAccessFile(name, options, &inner, dbg);
    if (status.ok()) *file = std::make_unique<RandomAccessFile>(std::move(inner), disk_);
    return status;
  }
  IOStatus NewDirectory(const std::string& name, const IOOptions& options,
                        std::unique_ptr<rocksdb::FSDirectory>* directory,
                        IODebugContext* dbg) override {
    std::unique_ptr<rocksdb::FSDirectory> inner;
    IOStatus status = target()->NewDirectory(name, options, &inner, dbg);
    if (status.ok()) *directory = std::make_unique<Directory>(std::move(inner), disk_, name);
    return status;
  }
  IOStatus CreateDir(const std::string& name, const IOOptions& options,
                     IODebugContext* dbg) override {
    return make_change(
        disk_, [&] { return target()->CreateDir(name, options, dbg); },
        [&](DiskModel& model) { model.made_folder(name); });
  }
  IOStatus CreateDirIfMissing(const std::string& name, const IOOptions& options,
                              IODebugContext* dbg) override {
    if (target()->FileExists(name, options, dbg).ok()) return IOStatus::OK();
    return make_change(
        disk_, [&] { return target()->CreateDirIfMissing(name, options, dbg); },
        [&](DiskModel& model) { model.made_folder(name); });
  }
  IOStatus DeleteDir(const std::string& name, const IOOptions& options,
                     IODebugContext* dbg) override {
    return make_change(
        disk_, [&] { return target()->DeleteDir(name, options, dbg); },
        [&](DiskModel& model) { model.removed(name); });
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                      IODebugContext* dbg) override {
    return make_change(
        disk_, [&] { return target()->RenameFile(from, to, options, dbg); },
        [&](DiskModel& model) { model.renamed(from, to); });
  }
  IOStatus LinkFile(const std::string& from, const std::string& to, const IOOptions& options,
                    IODebugContext* dbg) override {
    return make_change(
        disk_, [&] { return target()->LinkFile(from, to, options, dbg); },
        [&](DiskModel& model) { model.linked(from, to); });
  }
  IOStatus DeleteFile(const std::string& name, const IOOptions& options,
                      IODebugContext* dbg) override {
    return make_change(
        disk_, [&] { return target()->DeleteFile(name, options, dbg); },
        [&](DiskModel& model) { model.removed(name); });
  }
  IOStatus Truncate(const std::string& name, std::size_t size, const IOOptions& options,
                    IODebugContext* dbg) override {
    return make_change(
        disk_, [&] { return target()->Truncate(name, size, options, dbg); },
        [&](DiskModel& model) { model.truncated(model.find(name), size); });
  }
  // A log of messages is a file like the others.
  IOStatus NewLogger(const std::string& name, const IOOptions& options,
                     std::shared_ptr<rocksdb::Logger>* logger, IODebugContext* dbg) override {
    return FileSystem::NewLogger(name, options, logger, dbg);
  }
  IOStatus GetFreeSpace(const std::string&, const IOOptions&, std::uint64_t* free,
                        IODebugContext*) override {
    const auto guard = disk_.lock();
    *free = disk_.little_space() ? 1000 : std::uint64_t{1} << 40;
    return IOStatus::OK();
  }

 private:
  template <class Open>
  IOStatus open_to_write(const std::string& name, std::unique_ptr<rocksdb::FSWritableFile>* file,
                         bool fresh, Open open) {
    // A file that could not be opened cannot be hidden: there is nothing to hand out.
    const auto guard = disk_.lock();
    if (IOStatus fault = disk_.change(); !fault.ok()) return fault;
    std::unique_ptr<rocksdb::FSWritableFile> inner;
    IOStatus status = open(&inner);
    if (!status.ok()) return status;
    DiskModel& model = disk_.model();
    const Node known = fresh ? 0 : model.find(name);
    const Node node = known != 0 ? known : model.created(name);
    *file = std::make_unique<WritableFile>(std::move(inner), disk_, name, node);
    return status;
  }

  TortureDisk& disk_;
};

}  // namespace

std::unique_ptr<rocksdb::Env> make_torture_env(TortureDisk& disk) {
  return rocksdb::NewCompositeEnv(std::make_shared<TortureFileSystem>(disk));
}

}  // namespace perennial::storage::testing
