// SPDX-License-Identifier: Apache-2.0
// Checks the end of a table file before RocksDB sees it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "perennial/storage/status.h"

namespace perennial::storage {

// A table file, however it is read. `read` fills all of its span or returns false.
struct TableBytes {
  std::string name;
  std::uint64_t size = 0;
  std::function<bool(std::uint64_t offset, std::span<char> into)> read;
};

// Whether a block and its trailer (5 bytes) match the trailer's checksum.
bool is_block(std::string_view block);

// RocksDB parses a table's properties block before it has checked its checksum: damage there gives
// an error that names another file, or stops the process where the library was built with
// assertions. This checks footer, metaindex and properties of a file of format version 5 with XXH3
// checksums. Everything before them RocksDB checks itself. Cost: three small reads.
Status check_table_tail(const TableBytes& file);
Status check_table_tail(const std::filesystem::path& path);

// The same, and the index block: for each data block, in order, a key not before its last one and
// where it lies. corruption if its checksum is wrong. Cost: one read more, some 40 bytes a block.
Result<std::string> read_table_index(const TableBytes& file);
Result<std::string> read_table_index(const std::filesystem::path& path);

}  // namespace perennial::storage
