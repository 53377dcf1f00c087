// SPDX-License-Identifier: Apache-2.0
// Parsing of the index of a table file (block-based, format version 5, binary search index).
#include "page_locator.h"

#include <algorithm>
#include <cstring>

#include "table_encoding.h"
#include "text.h"

namespace perennial::storage {
namespace {

constexpr std::size_t kSequenceBytes = 8;  // sequence number and type, after every key
constexpr char kValueType = 1;

void append_varint(std::string& text, std::uint64_t value) {
  for (; value >= 128; value >>= 7) text.push_back(static_cast<char>(value | 128));
  text.push_back(static_cast<char>(value));
}

std::uint32_t fixed32(std::string_view text) {
  std::uint32_t value = 0;
  for (int i = 3; i >= 0; --i)
    value = value << 8 | static_cast<unsigned char>(text[std::size_t(i)]);
  return value;
}

// What stands before a value in a block of its own.
std::string head_of(std::string_view key, std::size_t value_bytes) {
  std::string head(1, '\0');
  append_varint(head, key.size() + kSequenceBytes);
  append_varint(head, value_bytes);
  head.append(key);
  head.push_back(kValueType);
  head.append(kSequenceBytes - 1, '\0');  // ingested files carry sequence number 0
  return head;
}

// Restart offset 0, restart count 1, no compression; then the checksum.
constexpr std::string_view kTailStart("\0\0\0\0\1\0\0\0\0", 9);

bool starts_with(std::span<const std::byte> bytes, std::string_view text) {
  return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

}  // namespace

Result<PageLocator> PageLocator::read(const std::filesystem::path& path) {
  return parse(read_table_index(path), path.string());
}

Result<PageLocator> PageLocator::read(const TableBytes& file) {
  return parse(read_table_index(file), file.name);
}

Result<PageLocator> PageLocator::parse(Result<std::string> index, const std::string& name) {
  if (!index.ok()) return index.status();
  const auto unknown = [&](const char* what) {
    return error(StatusCode::corruption, name, ": unexpected index block: ", what);
  };
  PageLocator locator;
  locator.index_ = std::move(*index);
  const std::string_view text = locator.index_;
  if (text.size() < 4) return unknown("no restart count");
  const std::uint64_t count = fixed32(text.substr(text.size() - 4));  // one restart an entry
  if (count > text.size() / 4 - 1) return unknown("more restarts than it has room for");
  std::string_view rest = text.substr(0, text.size() - 4 * (count + 1));
  locator.blocks_.reserve(count);
  std::uint64_t offset = 0;  // data blocks follow each other from the start of the file
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto shared = take_varint(rest);
    const auto key_bytes = take_varint(rest);
    if (shared != 0 || !key_bytes || *key_bytes > rest.size()) return unknown("a damaged key");
    Block block;
    block.key_at = static_cast<std::uint32_t>(rest.data() - text.data());
    block.key_bytes = static_cast<std::uint32_t>(*key_bytes);
    rest.remove_prefix(*key_bytes);
    const auto at = take_varint(rest);
    const auto bytes = take_varint(rest);
    if (at != offset || !bytes || *bytes > UINT32_MAX) return unknown("a gap between blocks");
    block.offset = offset;
    block.bytes = static_cast<std::uint32_t>(*bytes);
    offset += *bytes + kBlockTrailerBytes;
    if (!locator.blocks_.empty() &&
        locator.last_key(locator.blocks_.back()) >= locator.last_key(block)) {
      return unknown("keys that do not ascend");
    }
    locator.blocks_.push_back(block);
  }
  if (!rest.empty()) return unknown("bytes after its last entry");
  return locator;
}

std::optional<PageLocator::Extent> PageLocator::first_block() const {
  if (blocks_.empty()) return std::nullopt;
  return Extent{blocks_.front().offset, blocks_.front().bytes + kBlockTrailerBytes};
}

std::optional<PageLocator::Extent> PageLocator::last_block() const {
  if (blocks_.empty()) return std::nullopt;
  return Extent{blocks_.back().offset, blocks_.back().bytes + kBlockTrailerBytes};
}

std::optional<LocatedValue> PageLocator::find(std::string_view key, std::size_t value_bytes) const {
  const auto block = std::ranges::lower_bound(
      blocks_, key, {}, [this](const Block& candidate) { return last_key(candidate); });
  if (block == blocks_.end()) return std::nullopt;
  LocatedValue located;
  located.offset = block->offset;
  located.head = static_cast<std::uint32_t>(head_of(key, value_bytes).size());
  located.value = static_cast<std::uint32_t>(value_bytes);
  if (located.bytes() != block->bytes + kBlockTrailerBytes) return std::nullopt;
  return located;
}

bool is_value_of(std::string_view key, const LocatedValue& at, std::span<const std::byte> head,
                 std::span<const std::byte> tail) {
  const std::string expected = head_of(key, at.value);
  return head.size() == expected.size() && starts_with(head, expected) &&
         tail.size() == LocatedValue::kTail && starts_with(tail, kTailStart);
}

}  // namespace perennial::storage
