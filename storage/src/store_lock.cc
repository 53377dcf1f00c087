// SPDX-License-Identifier: Apache-2.0
// The lock of a store folder: flock, the holder's name, and children that do not inherit it.
#include "store_lock.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <ctime>
#include <fstream>
#include <mutex>
#include <system_error>
#include <thread>

#include "env_files.h"
#include "os_error.h"
#include "text.h"

namespace perennial::storage {
namespace {

// Descriptors to close in a forked child: a flock lives as long as any copy of its descriptor.
// Fixed and atomic because the child may only make async-signal-safe calls.
constexpr std::size_t kMaxLocks = 256;
std::array<std::atomic<int>, kMaxLocks> locked_descriptors;  // descriptor + 1; 0: free

void close_in_child() {
  for (std::atomic<int>& slot : locked_descriptors) {
    if (const int value = slot.exchange(0); value != 0) ::close(value - 1);
  }
}

bool remember(int fd) {
  static std::once_flag once;
  std::call_once(once, [] { ::pthread_atfork(nullptr, nullptr, close_in_child); });
  for (std::atomic<int>& slot : locked_descriptors) {
    int expected = 0;
    if (slot.compare_exchange_strong(expected, fd + 1)) return true;
  }
  return false;
}

void forget(int fd) {
  for (std::atomic<int>& slot : locked_descriptors) {
    int expected = fd + 1;
    if (slot.compare_exchange_strong(expected, 0)) return;
  }
}

std::string command_line() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  while (!text.empty() && text.back() == ' ') text.pop_back();
  constexpr std::size_t kLongest = 200;
  return text.substr(0, kLongest);
}

std::string describe_self() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  std::array<char, 32> since{};
  std::strftime(since.data(), since.size(), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text_of("pid ", ::getpid(), " on ", host.data(), " since ", since.data(), ": ",
                 command_line(), "\n");
}

std::string read_all(int fd) {
  std::array<char, 1024> buffer{};
  const ssize_t count = ::pread(fd, buffer.data(), buffer.size(), 0);
  return {buffer.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
}

bool write_all(int fd, const std::string& text) {
  return ::ftruncate(fd, 0) == 0 &&
         ::pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
}

bool same_file(int fd, const std::filesystem::path& path) {
  struct stat by_fd {};
  struct stat by_path {};
  return ::fstat(fd, &by_fd) == 0 && ::stat(path.c_str(), &by_path) == 0 &&
         by_fd.st_ino == by_path.st_ino && by_fd.st_dev == by_path.st_dev;
}

}  // namespace

Result<std::unique_ptr<StoreLock>> StoreLock::take(const std::filesystem::path& path) {
  // A holder that fails to open a new store removes the file again: then try anew.
  constexpr int kAttempts = 100;
  constexpr int kNameless = 5;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    bool created = false;
    int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
      fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
      if (fd < 0 && errno == EEXIST) continue;
      created = fd >= 0;
    }
    if (fd < 0) return os_error(path, errno);
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      const int number = errno;
      std::string holder = read_all(fd);
      ::close(fd);
      if (number != EWOULDBLOCK) return os_error(path, number);
      if (holder.empty() && attempt < kNameless) {  // it was just taken, or is asked about
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        continue;
      }
      while (!holder.empty() && holder.back() == '\n') holder.pop_back();
      if (holder.empty()) holder = "another process";
      return error(StatusCode::busy, path.string(), ": held by ", holder);
    }
    if (!same_file(fd, path)) {
      ::close(fd);
      continue;
    }
    std::unique_ptr<StoreLock> lock(new StoreLock);
    lock->path_ = path;
    lock->content_before_ = read_all(fd);
    lock->fd_ = fd;
    lock->pid_ = ::getpid();
    lock->created_ = created;
    if (!remember(fd)) {
      return error(StatusCode::io_error, path.string(), ": more than ", kMaxLocks,
                   " stores are open in this process");
    }
    if (!write_all(fd, describe_self())) return os_error(path, errno);
    return lock;
  }
  return error(StatusCode::busy, path.string(), ": other processes keep creating and removing it");
}

bool StoreLock::is_owner() const { return ::getpid() == pid_; }

StoreLock::~StoreLock() {
  if (!is_owner()) return;  // the child's copy was closed as it was forked
  forget(fd_);
  if (keep_) {
    if (::ftruncate(fd_, 0) != 0) errno = 0;  // what stays is a name nobody reads
  } else if (created_) {
    ::unlink(path_.c_str());
  } else {
    write_all(fd_, content_before_);
  }
  ::close(fd_);
}

Result<std::unique_ptr<ViewLease>> ViewLease::take(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return os_error(path, errno);
  std::unique_ptr<ViewLease> lease(new ViewLease);
  lease->fd_ = fd;
  lease->pid_ = ::getpid();
  // Waits: a writer that asks whether it is locked holds it for an instant.
  if (::flock(fd, LOCK_EX) != 0) return os_error(path, errno);
  if (!remember(fd)) {
    return error(StatusCode::io_error, path.string(), ": more than ", kMaxLocks,
                 " stores and views are open in this process");
  }
  lease->pin(0);
  return lease;
}

void ViewLease::pin(std::uint64_t commit) {
  // Whoever cannot write it stays nameless; the lock is what counts.
  if (!write_all(fd_,
                 text_of("view pid ", ::getpid(), " (", command_line(), ")\n", commit, "\n"))) {
    errno = 0;
  }
}

bool ViewLease::is_owner() const { return ::getpid() == pid_; }

ViewLease::~ViewLease() {
  if (!is_owner()) return;
  forget(fd_);
  ::close(fd_);
}

std::optional<LeaseText> read_live_lease(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  const bool free = ::flock(fd, LOCK_SH | LOCK_NB) == 0;
  const std::string text = free ? "" : read_all(fd);
  ::close(fd);
  if (free) return std::nullopt;
  LeaseText lease;
  const std::size_t end = text.find('\n');
  lease.reader = text.empty() ? "view of an unknown process" : text.substr(0, end);
  if (end != std::string::npos) {
    std::from_chars(text.data() + end + 1, text.data() + text.size(), lease.commit);
  }
  return lease;
}

FolderLock::FolderLock(const std::filesystem::path& path, Mode mode) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd_ < 0) return;
  if (::flock(fd_, mode == Mode::shared ? LOCK_SH : LOCK_EX | LOCK_NB) == 0) return;
  ::close(fd_);
  fd_ = -1;
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace perennial::storage
