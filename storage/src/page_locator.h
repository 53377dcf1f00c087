// SPDX-License-Identifier: Apache-2.0
// Where the values of a table file lie, so that one read can fetch one without RocksDB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/storage/status.h"
#include "table_tail.h"

namespace perennial::storage {

// A value that fills a data block of its own, as RocksDB lays it out:
//
//   shared key bytes (0), rest of the key, value size (varints) | key | sequence number and type
//   (8) | value | restart offset 0, restart count 1 (u32 each) | compression type, checksum (u32)
struct LocatedValue {
  std::uint64_t offset = 0;  // of the block in the file
  std::uint32_t head = 0;    // bytes before the value
  std::uint32_t value = 0;   // bytes of the value
  std::uint32_t bytes() const { return head + value + kTail; }
  static constexpr std::uint32_t kTail = 13;  // bytes after the value, with the block's trailer
};

// The index of one table file, read once. Immutable, safe to share between threads. Memory: the
// size of the index, some 50 bytes a block.
class PageLocator {
 public:
  // corruption: the tail or the index of the file do not match their checksums, or the index is
  // not one that SstFileWriter makes with the options of this store.
  static Result<PageLocator> read(const std::filesystem::path& path);
  static Result<PageLocator> read(const TableBytes& file);

  // Where the value of `key` lies if the file holds the key, if the value has `value_bytes` and if
  // it fills a block of its own, which every value of more than the 4 KiB of a block does. What
  // lies there must be checked with is_value_of(). O(log blocks), no I/O.
  std::optional<LocatedValue> find(std::string_view key, std::size_t value_bytes) const;

  // Where data blocks lie, with their trailers; nullopt in a file without any.
  struct Extent {
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
  };
  std::optional<Extent> first_block() const;
  std::optional<Extent> last_block() const;

 private:
  static Result<PageLocator> parse(Result<std::string> index, const std::string& name);
  struct Block {
    std::uint64_t offset = 0;
    std::uint32_t bytes = 0;  // without its trailer
    std::uint32_t key_at = 0;
    std::uint32_t key_bytes = 0;
  };
  std::string_view last_key(const Block& block) const {
    return std::string_view(index_).substr(block.key_at, block.key_bytes);
  }

  std::string index_;  // holds the keys
  std::vector<Block> blocks_;
};

// Whether the bytes read before and after a located value say that it is the whole, uncompressed
// value of `key`. The value itself is the caller's to check.
bool is_value_of(std::string_view key, const LocatedValue& at, std::span<const std::byte> head,
                 std::span<const std::byte> tail);

}  // namespace perennial::storage
