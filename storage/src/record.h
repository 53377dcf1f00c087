// SPDX-License-Identifier: Apache-2.0
// The record of a commit: everything about it but the bytes of its pages and chunks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "catalog.h"
#include "perennial/storage/page_store.h"
#include "state_table.h"

namespace perennial::storage {

inline constexpr std::uint32_t kRecordFormatVersion = 2;

struct ListedPage {
  PageId id;
  PageEntry entry;
};

struct Record {
  CommitInfo info;  // file_bytes and live_bytes are not stored
  StoreIdentity identity;
  Retention retention;
  std::vector<ListedPage> pages;  // new and changed pages, whose bytes this commit holds
  std::vector<PageId> removed;
  DenseTable dense;                    // always whole
  std::vector<std::uint64_t> dropped;  // commits that leave the catalog with this one, ascending
  // With a full table, the pages and the commits (this one included) of the whole store.
  bool full = false;
  std::vector<ListedPage> table;
  Catalog catalog;
};

Bytes encode_record(const Record& record);

// Checks the digest, every count and every value. Errors do not name the file.
Result<Record> decode_record(std::span<const std::byte> bytes, std::uint64_t expected_commit);

}  // namespace perennial::storage
