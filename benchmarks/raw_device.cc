// SPDX-License-Identifier: Apache-2.0
// Plain reads and writes with open, pread, write and fsync.
#include "raw_device.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <latch>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

namespace perennial::bench {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20;

[[noreturn]] void fail_os(const fs::path& path) {
  fail(path.string() + ": " + std::generic_category().message(errno));
}

std::vector<fs::path> files_under(const fs::path& folder) {
  if (fs::is_regular_file(folder)) return {folder};
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  return files;
}

}  // namespace

const char* to_string(Caching caching) {
  switch (caching) {
    case Caching::direct:
      return "direct";
    case Caching::cold:
      return "cold";
    case Caching::warm:
      return "warm";
  }
  return "";
}

AlignedBytes aligned_bytes(std::size_t size) {
  void* memory = std::aligned_alloc(kSector, (size + kSector - 1) / kSector * kSector);
  if (memory == nullptr) throw std::bad_alloc();
  return AlignedBytes(static_cast<std::byte*>(memory));
}

TemporaryFolder::TemporaryFolder(const fs::path& parent) {
  std::string name = (fs::absolute(parent) / "bench-store-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) fail_os(name);
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void fail(const std::string& what) { throw std::runtime_error(what); }

double now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

double cpu_seconds() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void prepare_cache(const fs::path& folder, Caching caching) {
  std::vector<char> buffer(kPiece);
  for (const fs::path& path : files_under(folder)) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) fail_os(path);
    if (caching == Caching::warm) {
      while (::read(file, buffer.data(), buffer.size()) > 0) {
      }
    } else {
      // Only clean pages can be dropped.
      if (::fdatasync(file) != 0 || ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) != 0) {
        fail_os(path);
      }
    }
    ::close(file);
  }
}

double write_file(const fs::path& path, std::span<const std::byte> bytes, Writing writing) {
  const double start = now();
  const int direct = writing == Writing::direct ? O_DIRECT : 0;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | direct, 0600);
  if (file < 0) fail_os(path);
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t count = ::write(file, bytes.data() + at, std::min(kPiece, bytes.size() - at));
    if (count <= 0) fail_os(path);
    at += static_cast<std::size_t>(count);
  }
  if (::fsync(file) != 0) fail_os(path);
  ::close(file);
  return now() - start;
}

double run_threads(std::size_t threads, std::size_t count,
                   const std::function<void(std::size_t, std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  std::latch ready(static_cast<std::ptrdiff_t>(threads));
  std::vector<double> starts(threads);
  std::vector<double> ends(threads);
  std::exception_ptr failure;
  std::once_flag failed;
  std::vector<std::jthread> pool;
  for (std::size_t thread = 0; thread < threads; ++thread) {
    pool.emplace_back([&, thread] {
      ready.arrive_and_wait();
      starts[thread] = now();
      try {
        for (std::size_t i = next++; i < count; i = next++) work(thread, i);
      } catch (...) {
        std::call_once(failed, [&] { failure = std::current_exception(); });
      }
      ends[thread] = now();
    });
  }
  pool.clear();  // joins
  if (failure) std::rethrow_exception(failure);
  return std::ranges::max(ends) - std::ranges::min(starts);
}

ReadFile::ReadFile(const fs::path& path, Caching caching)
    : file_(::open(path.c_str(),
                   O_RDONLY | O_CLOEXEC | (caching == Caching::direct ? O_DIRECT : 0))) {
  if (file_ < 0) fail_os(path);
  // Pages are read whole and in no order: reading ahead would only read too much.
  if (caching != Caching::direct) ::posix_fadvise(file_, 0, 0, POSIX_FADV_RANDOM);
}

ReadFile::~ReadFile() { ::close(file_); }

void ReadFile::read(std::uint64_t offset, std::span<std::byte> bytes, std::size_t least) const {
  const ssize_t count = ::pread(file_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
  if (count < 0 || static_cast<std::size_t>(count) < least) fail_os("pread");
}

std::uint64_t bytes_written() {
  std::ifstream file("/proc/self/io");
  std::string word;
  std::uint64_t value = 0;
  while (file >> word >> value) {
    if (word == "write_bytes:") return value;
  }
  fail("/proc/self/io has no write_bytes");
}

std::vector<std::byte> random_bytes(std::size_t size, std::uint64_t seed) {
  std::vector<std::byte> bytes(size);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (std::size_t at = 0; at + 8 <= size; at += 8) {  // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    const std::uint64_t value = state * 0x2545f4914f6cdd1d;
    std::memcpy(bytes.data() + at, &value, 8);
  }
  return bytes;
}

}  // namespace perennial::bench
