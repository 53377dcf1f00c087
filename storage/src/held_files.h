// SPDX-License-Identifier: Apache-2.0
// HeldFiles: a folder of a database as it is at one moment, without a byte on the disk.
#pragma once

#include <rocksdb/file_system.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace perennial::storage {

// Shows of one folder what it was told to hold, and nothing else. Table files are kept open, so
// that they stay whatever becomes of their names (and are read through the system's cache); small
// files are kept in memory. Thread-safety: hold() and forget() come before everything else.
class HeldFiles final : public rocksdb::FileSystemWrapper {
 public:
  HeldFiles(const std::shared_ptr<rocksdb::FileSystem>& target, std::filesystem::path folder)
      : FileSystemWrapper(target), folder_(std::move(folder)) {}
  const char* Name() const override { return "perennial.HeldFiles"; }

  // A file with this content.
  void hold(const std::string& name, std::string content) { texts_[name] = std::move(content); }
  // A table file. After some hundred it is only shown: a process may open so many files, and one
  // that goes meanwhile is then an error of the read that needs it.
  rocksdb::IOStatus hold(const std::string& name);
  void forget();

  rocksdb::IOStatus NewSequentialFile(const std::string& path, const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSSequentialFile>* file,
                                      rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewRandomAccessFile(const std::string& path,
                                        const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus GetFileSize(const std::string& path, const rocksdb::IOOptions& options,
                                std::uint64_t* size, rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus FileExists(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus GetChildren(const std::string& path, const rocksdb::IOOptions& options,
                                std::vector<std::string>* names,
                                rocksdb::IODebugContext* debug) override;

 private:
  struct Table {
    std::shared_ptr<rocksdb::FSRandomAccessFile> file;  // null: only shown
    std::uint64_t size = 0;
  };
  // The name of a file of the folder; empty for others.
  std::string name_of(const std::string& path) const;

  std::filesystem::path folder_;
  std::map<std::string, std::string> texts_;
  std::map<std::string, Table> tables_;
};

}  // namespace perennial::storage
