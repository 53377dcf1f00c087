// SPDX-License-Identifier: Apache-2.0
// Encoding of the store's keys.
#include "keys.h"

#include <cstring>

namespace perennial::storage {
namespace {

void append_big(std::string& key, std::uint64_t value, int size) {
  for (int i = size - 1; i >= 0; --i) key.push_back(static_cast<char>(value >> (8 * i)));
}

std::string prefix(std::uint64_t commit, char tag) {
  std::string key(1, kEpochPrefix);
  append_big(key, commit, 8);
  key.push_back(tag);
  return key;
}

}  // namespace

std::string chunk_key(std::uint64_t commit, const Digest& digest) {
  std::string key = prefix(commit, kChunkTag);
  key.append(reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size());
  return key;
}

std::string page_key(std::uint64_t commit, const PageId& id) {
  std::string key = prefix(commit, kPageTag);
  key.push_back(static_cast<char>(id.kind));
  append_big(key, id.pool, 4);
  append_big(key, id.row, 4);
  append_big(key, id.tile, 4);
  return key;
}

std::string record_key(std::uint64_t commit) { return prefix(commit, kRecordTag); }

std::optional<ParsedKey> parse_key(std::string_view key) {
  const std::optional<std::uint64_t> commit = commit_of_key(key);
  if (!commit) return std::nullopt;
  ParsedKey parsed{*commit, key[9], {}, {}};
  const std::string_view rest = key.substr(10);
  const auto big = [&](std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t i = at; i < at + 4; ++i) {
      value = value << 8 | static_cast<unsigned char>(rest[i]);
    }
    return value;
  };
  if (parsed.tag == kRecordTag && rest.empty()) return parsed;
  if (parsed.tag == kChunkTag && rest.size() == parsed.chunk.bytes.size()) {
    std::memcpy(parsed.chunk.bytes.data(), rest.data(), rest.size());
    return parsed;
  }
  if (parsed.tag == kPageTag && rest.size() == 13) {
    parsed.page = {static_cast<PageKind>(rest[0]), big(1), big(5), big(9)};
    return parsed;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> commit_of_key(std::string_view key) {
  if (key.size() < 10 || key[0] != kEpochPrefix) return std::nullopt;
  std::uint64_t commit = 0;
  for (int i = 1; i <= 8; ++i) commit = commit << 8 | static_cast<unsigned char>(key[i]);
  return commit;
}

}  // namespace perennial::storage
