// SPDX-License-Identifier: Apache-2.0
// Reads and writes safetensors files: named tensors in one file, with a JSON header in front.
//
// Format: the header's length in bytes (u64, little-endian), the header
//   {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...,
//    "__metadata__": {"key": "text", ...}},
// then the tensors' bytes, which the offsets count from. Tensors leave no hole and do not overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/storage/status.h"

namespace perennial::storage {

// Element types, little-endian in the file.
enum class TensorType : std::uint8_t {
  boolean,  // one byte
  u8,
  i8,
  f8_e4m3,
  f8_e5m2,
  u16,
  i16,
  f16,
  bf16,
  u32,
  i32,
  f32,
  u64,
  i64,
  f64,
};
// The name in the file: "F32".
std::string_view to_string(TensorType type);
std::size_t element_bytes(TensorType type);

// Limits of what is read and written. The first is the Python package's; the others keep what a
// hostile header costs within a few times its length.
inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;
inline constexpr std::size_t kMaxSafetensors = 1 << 20;
inline constexpr std::size_t kMaxSafetensorsMetadata = 1 << 16;
inline constexpr std::size_t kMaxSafetensorsDims = 64;

struct TensorSpec {
  std::string name;  // any UTF-8 but "__metadata__"
  TensorType type = TensorType::f32;
  std::vector<std::uint64_t> shape;  // row-major; empty: one element
};

struct TensorInfo : TensorSpec {
  std::uint64_t offset = 0;  // of its first byte, after the header
  std::uint64_t bytes = 0;
};

using SafetensorsMetadata = std::map<std::string, std::string>;

// An open file whose header has been checked in full against the file's length. Thread-compatible;
// read() may be called from several threads at once.
class SafetensorsReader {
 public:
  // Reads and checks the header, not the tensors. not_found; invalid_argument: no regular file;
  // corruption: the header breaks a rule of the format (the message says which) or repeats a name
  // or key, is beyond the limits above, or the file's length is not what it says; io_error.
  static Result<std::unique_ptr<SafetensorsReader>> open(const std::filesystem::path& path);
  ~SafetensorsReader();
  SafetensorsReader(const SafetensorsReader&) = delete;
  SafetensorsReader& operator=(const SafetensorsReader&) = delete;

  const std::filesystem::path& path() const;
  // In the order of their bytes.
  const std::vector<TensorInfo>& tensors() const;
  const SafetensorsMetadata& metadata() const;
  // The tensor of that name, or null. O(log tensors).
  const TensorInfo* find(std::string_view name) const;

  // Copies bytes [offset, offset + out.size()) of a tensor. not_found: no such tensor.
  // invalid_argument: beyond its end. corruption: the file has become shorter. io_error.
  Status read(std::string_view name, std::uint64_t offset, std::span<std::byte> out) const;

 private:
  struct Impl;
  explicit SafetensorsReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Writes one file front to back, so that a file of any size needs no memory. It is built as
// `path`.part and gets its name at the end, durably: under `path` there is a whole file or none.
// After an error, and when destroyed before finish(), the part file is gone. Single-threaded.
class SafetensorsWriter {
 public:
  // Declares everything but the bytes, and writes the header. invalid_argument: `path` or its part
  // file exists (another writer is at work, or was killed), a name is repeated or no UTF-8, or
  // something exceeds the limits above. no_space, io_error.
  static Result<std::unique_ptr<SafetensorsWriter>> create(const std::filesystem::path& path,
                                                           const std::vector<TensorSpec>& tensors,
                                                           const SafetensorsMetadata& metadata);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The next bytes, of the tensors one after the other in the order of create(); a call may end
  // anywhere. One system call: give it thousands of bytes at a time. invalid_argument: more than
  // was declared. no_space, io_error.
  Status append(std::span<const std::byte> bytes);
  // Syncs the file and gives it its name. invalid_argument: bytes are missing, or `path` exists by
  // now. no_space, io_error.
  Status finish();

 private:
  struct Impl;
  explicit SafetensorsWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace perennial::storage
