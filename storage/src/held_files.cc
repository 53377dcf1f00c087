// SPDX-License-Identifier: Apache-2.0
// HeldFiles: shared handles of table files, and small files in memory.
#include "held_files.h"

#include <algorithm>
#include <cstring>

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

// Beside RocksDB's 512 and the 256 of TableReads below the usual limit of 1024.
constexpr std::size_t kMostHeld = 200;

class HeldText final : public rocksdb::FSSequentialFile {
 public:
  explicit HeldText(const std::string& text) : text_(text) {}
  IOStatus Read(std::size_t bytes, const IOOptions&, rocksdb::Slice* result, char* scratch,
                IODebugContext*) override {
    const std::size_t count = std::min(bytes, text_.size() - at_);
    std::memcpy(scratch, text_.data() + at_, count);
    *result = rocksdb::Slice(scratch, count);
    at_ += count;
    return IOStatus::OK();
  }
  IOStatus Skip(std::uint64_t bytes) override {
    at_ += static_cast<std::size_t>(std::min<std::uint64_t>(bytes, text_.size() - at_));
    return IOStatus::OK();
  }

 private:
  std::string text_;
  std::size_t at_ = 0;
};

class SharedFile final : public rocksdb::FSRandomAccessFileWrapper {
 public:
  explicit SharedFile(std::shared_ptr<rocksdb::FSRandomAccessFile> file)
      : FSRandomAccessFileWrapper(file.get()), file_(std::move(file)) {}

 private:
  std::shared_ptr<rocksdb::FSRandomAccessFile> file_;
};

IOStatus not_held(const std::string& path) { return IOStatus::PathNotFound(path, "not held"); }

}  // namespace

std::string HeldFiles::name_of(const std::string& path) const {
  const fs::path whole(path);
  return whole.parent_path() == folder_ ? whole.filename().string() : "";
}

IOStatus HeldFiles::hold(const std::string& name) {
  const std::string path = (folder_ / name).string();
  Table table;
  IOStatus status = target()->GetFileSize(path, IOOptions(), &table.size, nullptr);
  if (status.ok() && tables_.size() < kMostHeld) {
    std::unique_ptr<rocksdb::FSRandomAccessFile> file;
    status = target()->NewRandomAccessFile(path, FileOptions(), &file, nullptr);
    table.file = std::move(file);
  }
  if (status.ok()) tables_[name] = std::move(table);
  return status;
}

void HeldFiles::forget() {
  texts_.clear();
  tables_.clear();
}

IOStatus HeldFiles::NewSequentialFile(const std::string& path, const FileOptions& options,
                                      std::unique_ptr<rocksdb::FSSequentialFile>* file,
                                      IODebugContext* debug) {
  const std::string name = name_of(path);
  if (name.empty()) return target()->NewSequentialFile(path, options, file, debug);
  const auto text = texts_.find(name);
  if (text == texts_.end()) return not_held(path);
  *file = std::make_unique<HeldText>(text->second);
  return IOStatus::OK();
}

IOStatus HeldFiles::NewRandomAccessFile(const std::string& path, const FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        IODebugContext* debug) {
  const std::string name = name_of(path);
  const auto table = tables_.find(name);
  if (!name.empty() && table == tables_.end()) return not_held(path);
  if (name.empty() || table->second.file == nullptr) {
    return target()->NewRandomAccessFile(path, options, file, debug);
  }
  *file = std::make_unique<SharedFile>(table->second.file);
  return IOStatus::OK();
}

IOStatus HeldFiles::GetFileSize(const std::string& path, const IOOptions& options,
                                std::uint64_t* size, IODebugContext* debug) {
  const std::string name = name_of(path);
  if (name.empty()) return target()->GetFileSize(path, options, size, debug);
  if (const auto text = texts_.find(name); text != texts_.end()) {
    *size = text->second.size();
  } else if (const auto table = tables_.find(name); table != tables_.end()) {
    *size = table->second.size;
  } else {
    return not_held(path);
  }
  return IOStatus::OK();
}

IOStatus HeldFiles::FileExists(const std::string& path, const IOOptions& options,
                               IODebugContext* debug) {
  const std::string name = name_of(path);
  if (name.empty()) return target()->FileExists(path, options, debug);
  return texts_.contains(name) || tables_.contains(name) ? IOStatus::OK() : IOStatus::NotFound();
}

IOStatus HeldFiles::GetChildren(const std::string& path, const IOOptions& options,
                                std::vector<std::string>* names, IODebugContext* debug) {
  if (fs::path(path) != folder_) return target()->GetChildren(path, options, names, debug);
  names->clear();
  for (const auto& [name, text] : texts_) names->push_back(name);
  for (const auto& [name, table] : tables_) names->push_back(name);
  return IOStatus::OK();
}

}  // namespace perennial::storage
