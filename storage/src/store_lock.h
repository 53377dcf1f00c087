// SPDX-License-Identifier: Apache-2.0
// StoreLock: the LOCK file that keeps a second process out and names the first.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>
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

}  // namespace perennial::storage
