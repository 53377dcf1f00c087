// SPDX-License-Identifier: Apache-2.0
// The file system without a store: reads and writes of plain files, what the process wrote, and a
// folder that goes away.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace perennial::bench {

// How a read meets the page cache.
enum class Caching {
  direct,  // O_DIRECT: past it
  cold,    // through it, its pages of the file dropped before
  warm,    // through it, the file read before
};
const char* to_string(Caching caching);

// What the file system writes in one piece, and the alignment of direct I/O.
inline constexpr std::size_t kSector = 4096;

struct FreeDeleter {
  void operator()(void* memory) const { std::free(memory); }
};
using AlignedBytes = std::unique_ptr<std::byte[], FreeDeleter>;
AlignedBytes aligned_bytes(std::size_t size);

// A new folder inside `parent`, removed with what is in it.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::filesystem::path& parent);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Throws: a benchmark that went wrong has no figures.
[[noreturn]] void fail(const std::string& what);

double now();          // seconds, steady
double cpu_seconds();  // user and system, of all threads of this process

// Drops (direct, cold) or fills (warm) the page cache for every file under `folder`, a folder or a
// file, so that a read meets what `caching` says.
void prepare_cache(const std::filesystem::path& folder, Caching caching);

// Writes the bytes to a new file in pieces of 1 MiB and syncs it; seconds. The file is left.
enum class Writing { buffered, direct };
double write_file(const std::filesystem::path& path, std::span<const std::byte> bytes,
                  Writing writing);

// Calls work(thread, i) for i in [0, count) from several threads; seconds.
double run_threads(std::size_t threads, std::size_t count,
                   const std::function<void(std::size_t, std::size_t)>& work);

// Opens for reading; direct if asked. Throws if it cannot.
class ReadFile {
 public:
  ReadFile(const std::filesystem::path& path, Caching caching);
  ~ReadFile();
  ReadFile(const ReadFile&) = delete;
  ReadFile& operator=(const ReadFile&) = delete;
  // Fills `bytes`, at least its first `least` (the file may end before the rest).
  void read(std::uint64_t offset, std::span<std::byte> bytes, std::size_t least) const;

 private:
  int file_;
};

// Bytes this process has sent towards the device, as the kernel counts them.
std::uint64_t bytes_written();

// Pseudo-random bytes: nothing that a device or a file system could shorten.
std::vector<std::byte> random_bytes(std::size_t size, std::uint64_t seed);

}  // namespace perennial::bench
