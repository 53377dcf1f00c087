// SPDX-License-Identifier: Apache-2.0
// The wrapper around a store's file system.
#include "store_file_system.h"

#include <rocksdb/file_system.h>

#include <algorithm>
#include <boost/crc.hpp>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>

#include "env_files.h"
#include "page_locator.h"

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

constexpr int kReadAttempts = 3;

// A table file of which the first block, and all from the last data block on, are in memory.
class HeldTable final : public rocksdb::FSRandomAccessFile {
 public:
  explicit HeldTable(std::unique_ptr<rocksdb::FSRandomAccessFile> file) : file_(std::move(file)) {}

  // Reads what it holds; an error if that cannot be read or does not match its checksums.
  IOStatus hold(const std::string& name, std::uint64_t size) {
    IOStatus failure;
    TableBytes bytes;
    bytes.name = name;
    bytes.size = size;
    bytes.read = [&](std::uint64_t offset, std::span<char> into) {
      const IOStatus status = read_exactly(*file_, offset, into);
      if (!status.ok()) failure = status;
      return status.ok();
    };
    const Result<PageLocator> locator = PageLocator::read(bytes);
    if (!failure.ok()) return failure;
    if (!locator.ok()) return IOStatus::Corruption(locator.status().message());
    const auto first = locator->first_block();
    const auto last = locator->last_block();
    if (!first || !last) return IOStatus::Corruption(name, "holds nothing");
    first_ = {first->offset, std::string(first->bytes, '\0')};
    rest_ = {last->offset, std::string(size - last->offset, '\0')};
    for (Part* part : {&first_, &rest_}) {
      IOStatus status = read_exactly(*file_, part->offset, part->bytes);
      if (!status.ok()) return status;
    }
    if (!is_block(first_.bytes) ||
        !is_block(std::string_view(rest_.bytes).substr(0, last->bytes))) {
      return IOStatus::Corruption(name, "reads back damaged");
    }
    return IOStatus::OK();
  }

  IOStatus Read(std::uint64_t offset, std::size_t bytes, const IOOptions& options, Slice* result,
                char* scratch, IODebugContext* debug) const override {
    for (const Part* part : {&first_, &rest_}) {
      if (offset < part->offset || offset - part->offset > part->bytes.size()) continue;
      const std::string_view held =
          std::string_view(part->bytes).substr(static_cast<std::size_t>(offset - part->offset));
      if (held.size() < bytes && part == &first_) continue;
      const std::size_t count = std::min(bytes, held.size());
      std::memcpy(scratch, held.data(), count);
      *result = Slice(scratch, count);
      return IOStatus::OK();
    }
    return file_->Read(offset, bytes, options, result, scratch, debug);
  }
  // Nothing to read ahead.
  IOStatus Prefetch(std::uint64_t, std::size_t, const IOOptions&, IODebugContext*) override {
    return IOStatus::OK();
  }

 private:
  struct Part {
    std::uint64_t offset = 0;
    std::string bytes;
  };
  std::unique_ptr<rocksdb::FSRandomAccessFile> file_;
  Part first_;
  Part rest_;
};

// The records of RocksDB's logs: blocks of 32 KiB, in which a record is checksum (u32), length
// (u16), type (u8) and its bytes; one that does not fit is split.
constexpr std::size_t kLogBlockBytes = 32768;
constexpr std::size_t kLogHeaderBytes = 7;
enum RecordType : unsigned char { kFull = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

bool matches_checksum(std::string_view record) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc32c;
  crc32c.process_bytes(record.data() + 6, record.size() - 6);  // type and bytes
  const std::uint32_t crc = crc32c.checksum();
  const std::uint32_t masked = ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
  std::uint32_t stored = 0;
  for (int i = 3; i >= 0; --i) {
    stored = stored << 8 | static_cast<unsigned char>(record[std::size_t(i)]);
  }
  return stored == masked;
}

// Follows the records of a log from its start.
class LogScan {
 public:
  // Where the last whole record ends.
  std::uint64_t end() const { return end_; }

  // The next block, of kLogBlockBytes unless it is the last. False: nothing after it counts.
  bool add(std::string_view block) {
    for (std::size_t at = 0; block.size() - at >= kLogHeaderBytes;) {
      const auto byte = [&](std::size_t i) {
        return std::size_t{static_cast<unsigned char>(block[at + i])};
      };
      const std::size_t bytes = kLogHeaderBytes + byte(4) + (byte(5) << 8);
      const auto type = static_cast<unsigned char>(block[at + 6]);
      const bool starts = type == kFull || type == kFirst;
      if (type < kFull || type > kLast || starts == inside_ || bytes > block.size() - at ||
          !matches_checksum(block.substr(at, bytes))) {
        return false;
      }
      at += bytes;
      inside_ = type == kFirst || type == kMiddle;
      if (!inside_) end_ = start_ + at;
    }
    start_ += block.size();
    return block.size() == kLogBlockBytes;
  }

 private:
  std::uint64_t start_ = 0;
  std::uint64_t end_ = 0;
  bool inside_ = false;  // of a record that was split
};

IOStatus find_log_end(rocksdb::FSSequentialFile& file, std::uint64_t& end) {
  LogScan scan;
  std::string scratch(kLogBlockBytes, '\0');
  for (bool more = true; more;) {
    std::string block;
    while (block.size() < kLogBlockBytes) {
      Slice found;
      IOStatus status =
          file.Read(kLogBlockBytes - block.size(), IOOptions(), &found, scratch.data(), nullptr);
      if (!status.ok()) return status;
      if (found.empty()) break;
      block.append(found.data(), found.size());
    }
    more = scan.add(block);
  }
  end = scan.end();
  return IOStatus::OK();
}

// The first bytes of a file.
class CutFile final : public rocksdb::FSSequentialFileOwnerWrapper {
 public:
  CutFile(std::unique_ptr<rocksdb::FSSequentialFile>&& file, std::uint64_t bytes)
      : FSSequentialFileOwnerWrapper(std::move(file)), left_(bytes) {}
  IOStatus Read(std::size_t bytes, const IOOptions& options, Slice* result, char* scratch,
                IODebugContext* debug) override {
    const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, left_));
    *result = Slice();
    if (wanted == 0) return IOStatus::OK();
    IOStatus status = FSSequentialFileOwnerWrapper::Read(wanted, options, result, scratch, debug);
    if (status.ok()) left_ -= result->size();
    return status;
  }
  IOStatus Skip(std::uint64_t bytes) override {
    const std::uint64_t skipped = std::min(bytes, left_);
    left_ -= skipped;
    return FSSequentialFileOwnerWrapper::Skip(skipped);
  }

 private:
  std::uint64_t left_;
};

class StoreFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  StoreFileSystem(const std::shared_ptr<FileSystem>& target, ManifestEnd end)
      : FileSystemWrapper(target), end_(end) {}
  const char* Name() const override { return "perennial.StoreFileSystem"; }

  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                      IODebugContext* debug) override {
    const fs::path path(to);
    if (path.filename() == "CURRENT") {
      std::unique_ptr<rocksdb::FSDirectory> folder;
      IOStatus status =
          target()->NewDirectory(path.parent_path().string(), options, &folder, debug);
      if (status.ok()) status = folder->Fsync(options, debug);
      if (!status.ok()) return status;
    }
    return target()->RenameFile(from, to, options, debug);
  }

  IOStatus NewRandomAccessFile(const std::string& name, const FileOptions& options,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                               IODebugContext* debug) override {
    if (!name.ends_with(".ingest")) {
      return target()->NewRandomAccessFile(name, options, file, debug);
    }
    FileOptions buffered = options;
    buffered.use_direct_reads = false;
    IOStatus status;
    for (int attempt = 0; attempt < kReadAttempts; ++attempt) {
      std::unique_ptr<rocksdb::FSRandomAccessFile> inner;
      std::uint64_t size = 0;
      status = target()->GetFileSize(name, options.io_options, &size, debug);
      if (status.ok()) status = target()->NewRandomAccessFile(name, buffered, &inner, debug);
      if (!status.ok()) continue;
      auto held = std::make_unique<HeldTable>(std::move(inner));
      status = held->hold(name, size);
      if (!status.ok()) continue;
      *file = std::move(held);
      return status;
    }
    return status;
  }

  IOStatus NewSequentialFile(const std::string& name, const FileOptions& options,
                             std::unique_ptr<rocksdb::FSSequentialFile>* file,
                             IODebugContext* debug) override {
    if (end_ == ManifestEnd::as_it_is ||
        !fs::path(name).filename().string().starts_with("MANIFEST-")) {
      return target()->NewSequentialFile(name, options, file, debug);
    }
    FileOptions buffered = options;
    buffered.use_direct_reads = false;
    std::unique_ptr<rocksdb::FSSequentialFile> inner;
    IOStatus status = target()->NewSequentialFile(name, buffered, &inner, debug);
    std::uint64_t end = 0;
    if (status.ok()) status = find_log_end(*inner, end);
    if (status.ok()) status = target()->NewSequentialFile(name, buffered, &inner, debug);
    if (status.ok()) *file = std::make_unique<CutFile>(std::move(inner), end);
    return status;
  }

 private:
  ManifestEnd end_;
};

}  // namespace

std::unique_ptr<rocksdb::Env> make_store_env(rocksdb::Env& env, ManifestEnd end) {
  return rocksdb::NewCompositeEnv(std::make_shared<StoreFileSystem>(env.GetFileSystem(), end));
}

}  // namespace perennial::storage
