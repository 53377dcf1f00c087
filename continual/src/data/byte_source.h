// SPDX-License-Identifier: Apache-2.0
// The bytes of a file, unpacked on the way when the file is gzip.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace perennial::continual {

// Reads a file from front to back. Gzip is recognised by its first two bytes, whatever the name.
// Every failure is a DataError naming the file. Single-threaded.
class ByteSource {
 public:
  explicit ByteSource(const std::filesystem::path& file);
  ~ByteSource();
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  // Reads up to `count` bytes; fewer only at the end.
  std::size_t read(void* to, std::size_t count);
  // As read, but fewer than `count` bytes is an error that says what was being read.
  void read_exactly(void* to, std::size_t count, const char* what);
  // True when nothing is left. Of a gzip file, this has checked its checksum.
  bool at_end();
  // Everything that is left.
  std::string rest();

  // An upper bound of the bytes the whole content can have: exact for a plain file; of a gzip file
  // what deflate's best ratio allows. Sizes that a header claims are checked against it before
  // anything of that size is allocated.
  std::uint64_t size_bound() const { return size_bound_; }
  bool compressed() const { return compressed_; }
  // Bytes handed out so far.
  std::uint64_t position() const { return position_; }
  const std::filesystem::path& file() const { return file_; }

  // Throws DataError "FILE: message".
  [[noreturn]] void fail(const std::string& message) const;

 private:
  struct Impl;
  std::filesystem::path file_;
  std::uint64_t size_bound_ = 0;
  std::uint64_t position_ = 0;
  bool compressed_ = false;
  std::unique_ptr<Impl> impl_;
};

// The first bytes of a file's (unpacked) content, at most `count`.
std::string peek_bytes(const std::filesystem::path& file, std::size_t count);

}  // namespace perennial::continual
