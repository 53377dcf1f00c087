// SPDX-License-Identifier: Apache-2.0
// The tail of a table file: properties block, metaindex block, footer (53 bytes).
#include "table_tail.h"

#include <cstdint>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

#include "table_encoding.h"
#include "text.h"
#include "xxh3.h"

namespace perennial::storage {
namespace {

// Footer: checksum type (1), handles of metaindex and index padded with zeros (40), format version
// (4), magic (8).
constexpr std::size_t kFooterBytes = 53;
constexpr std::size_t kHandlesAt = 1;
constexpr std::size_t kVersionAt = 41;
constexpr char kXxh3ChecksumType = 4;
constexpr std::string_view kVersionAndMagic("\x05\0\0\0\xf7\xcf\xf4\x85\xb7\x41\xe2\x88", 12);
constexpr std::string_view kPropertiesKey = "rocksdb.properties";

struct Handle {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

std::optional<Handle> take_handle(std::string_view& text) {
  const auto offset = take_varint(text);
  const auto size = take_varint(text);
  if (!offset || !size) return std::nullopt;
  return Handle{*offset, *size};
}

// A block without its trailer; nullopt if it is not inside the file or its checksum is wrong.
std::optional<std::string> read_block(const TableBytes& file, const Handle& handle) {
  constexpr std::uint64_t kLargest = std::uint64_t{64} << 20;
  if (handle.size > kLargest || handle.offset > file.size ||
      handle.size + kBlockTrailerBytes + kFooterBytes > file.size - handle.offset) {
    return std::nullopt;
  }
  std::string block(handle.size + kBlockTrailerBytes, '\0');
  if (!file.read(handle.offset, block)) return std::nullopt;
  if (!is_block(block)) return std::nullopt;
  block.resize(handle.size);
  return block;
}

// What check_table_tail() says; leaves the handle of the index.
Status read_tail(const TableBytes& file, Handle& index) {
  const auto damaged = [&](const char* what) {
    return error(StatusCode::corruption, file.name, ": damaged ", what);
  };
  if (file.size < kFooterBytes) return damaged("table file: shorter than a footer");
  std::string footer(kFooterBytes, '\0');
  if (!file.read(file.size - kFooterBytes, footer)) {
    return error(StatusCode::io_error, file.name, ": cannot be read");
  }
  std::string_view handles(footer.data() + kHandlesAt, kVersionAt - kHandlesAt);
  const auto metaindex_at = take_handle(handles);
  const auto index_at = take_handle(handles);
  if (footer[0] != kXxh3ChecksumType || footer.substr(kVersionAt) != kVersionAndMagic ||
      !metaindex_at || !index_at || handles.find_first_not_of('\0') != std::string_view::npos) {
    return damaged("footer");
  }
  const auto metaindex = read_block(file, *metaindex_at);
  if (!metaindex) return damaged("metaindex block");
  const std::size_t key = metaindex->find(kPropertiesKey);
  if (key == std::string::npos) return damaged("metaindex block: it lists no properties");
  std::string_view value = std::string_view(*metaindex).substr(key + kPropertiesKey.size());
  const auto properties_at = take_handle(value);
  if (!properties_at || !read_block(file, *properties_at)) return damaged("properties block");
  index = *index_at;
  return {};
}

// The bytes of a file that `file` opens.
Result<TableBytes> bytes_of(const std::filesystem::path& path, std::ifstream& file) {
  file.open(path, std::ios::binary | std::ios::ate);
  if (!file) return error(StatusCode::io_error, path.string(), ": cannot be opened");
  TableBytes bytes;
  bytes.name = path.string();
  bytes.size = static_cast<std::uint64_t>(file.tellg());
  bytes.read = [&file](std::uint64_t offset, std::span<char> into) {
    file.seekg(static_cast<std::streamoff>(offset));
    return bool(file.read(into.data(), static_cast<std::streamsize>(into.size())));
  };
  return bytes;
}

}  // namespace

bool is_block(std::string_view block) {
  if (block.size() < kBlockTrailerBytes) return false;
  const std::size_t size = block.size() - kBlockTrailerBytes;
  // RocksDB's kXXH3: the hash of the block, then the compression type mixed in by a multiplication.
  constexpr std::uint32_t kLastBytePrime = 0x6b9083d9;
  const auto type = static_cast<unsigned char>(block[size]);
  const std::uint32_t expected =
      static_cast<std::uint32_t>(XXH3_64bits(block.data(), size)) ^ (type * kLastBytePrime);
  std::uint32_t stored = 0;
  for (int i = 3; i >= 0; --i) {
    stored = stored << 8 | static_cast<unsigned char>(block[size + 1 + std::size_t(i)]);
  }
  return stored == expected;
}

Status check_table_tail(const TableBytes& file) {
  Handle index;
  return read_tail(file, index);
}

Status check_table_tail(const std::filesystem::path& path) {
  std::ifstream file;
  const Result<TableBytes> bytes = bytes_of(path, file);
  return bytes.ok() ? check_table_tail(*bytes) : bytes.status();
}

Result<std::string> read_table_index(const TableBytes& file) {
  Handle handle;
  if (Status status = read_tail(file, handle); !status.ok()) return status;
  std::optional<std::string> index = read_block(file, handle);
  if (!index) return error(StatusCode::corruption, file.name, ": damaged index block");
  return std::move(*index);
}

Result<std::string> read_table_index(const std::filesystem::path& path) {
  std::ifstream file;
  const Result<TableBytes> bytes = bytes_of(path, file);
  return bytes.ok() ? read_table_index(*bytes) : bytes.status();
}

}  // namespace perennial::storage
