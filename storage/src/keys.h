// SPDX-License-Identifier: Apache-2.0
// Keys of the store: 'E', the commit (8 bytes, big-endian), a tag, and what the tag needs. The
// record's tag sorts last, so one ascending pass can write a commit whose record holds the digests
// of everything before it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "perennial/storage/digest.h"
#include "perennial/storage/page.h"

namespace perennial::storage {

inline constexpr char kEpochPrefix = 'E';
inline constexpr char kChunkTag = 'D';
inline constexpr char kPageTag = 'W';
inline constexpr char kRecordTag = 'Z';

std::string chunk_key(std::uint64_t commit, const Digest& digest);
std::string page_key(std::uint64_t commit, const PageId& id);
std::string record_key(std::uint64_t commit);

// The commit a key belongs to; nullopt if it is no key of a store.
std::optional<std::uint64_t> commit_of_key(std::string_view key);

struct ParsedKey {
  std::uint64_t commit = 0;
  char tag = 0;
  PageId page;   // of a page
  Digest chunk;  // of a chunk
};
// nullopt if it is no key of this format.
std::optional<ParsedKey> parse_key(std::string_view key);

}  // namespace perennial::storage
