// SPDX-License-Identifier: Apache-2.0
// StoreLock: the LOCK file that keeps a second process out and names the first. ViewLease: the file
// that names a reader.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "perennial/storage/status.h"

namespace perennial::storage {

// Holds a flock on a file until destroyed. The system drops it with the process, so a dead holder
// is no obstacle whatever the file says. Neither a forked nor an executed child keeps it.
class StoreLock {
 public:
  // busy names the holder; io_error where the file cannot be opened for writing.
  static Result<std::unique_ptr<StoreLock>> take(const std::filesystem::path& path);
  ~StoreLock();
  StoreLock(const StoreLock&) = delete;
  StoreLock& operator=(const StoreLock&) = delete;

  // Keeps the file when the lock goes. Without it the file is put back as it was found.
  void keep() { keep_ = true; }
  // True in the process that took it, false in a forked child.
  bool is_owner() const;

 private:
  StoreLock() = default;
  std::filesystem::path path_;
  std::string content_before_;
  int fd_ = -1;
  pid_t pid_ = 0;
  bool created_ = false;
  bool keep_ = false;
};

// A file that says who reads a view, locked as long as that reader lives.
class ViewLease {
 public:
  // Makes the file, which must not be there, and locks it.
  static Result<std::unique_ptr<ViewLease>> take(const std::filesystem::path& path);
  ~ViewLease();
  ViewLease(const ViewLease&) = delete;
  ViewLease& operator=(const ViewLease&) = delete;

  // Names the commit that is read.
  void pin(std::uint64_t commit);
  // True in the process that took it, false in a forked child.
  bool is_owner() const;

 private:
  ViewLease() = default;
  int fd_ = -1;
  pid_t pid_ = 0;
};

// What a lease file says, if its reader lives; nullopt if it is gone.
struct LeaseText {
  std::string reader;
  std::uint64_t commit = 0;
};
std::optional<LeaseText> read_live_lease(const std::filesystem::path& path);

// Keeps a folder to those who lock it too, for as long as it lives. Shared: with others who share.
class FolderLock {
 public:
  enum class Mode { shared, exclusive_if_free };
  FolderLock(const std::filesystem::path& path, Mode mode);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  bool held() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

}  // namespace perennial::storage
