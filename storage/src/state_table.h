// SPDX-License-Identifier: Apache-2.0
// The state of a store in memory: which commit holds each page and each chunk of dense state.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "perennial/storage/digest.h"
#include "perennial/storage/page.h"

namespace perennial::storage {

// Dense entries are cut every so many bytes; the last chunk holds the rest. Part of the format.
inline constexpr std::size_t kChunkBytes = std::size_t{256} << 10;

struct PageEntry {
  PageShape shape;
  Digest digest;             // XXH3-128 of the payload
  std::uint64_t commit = 0;  // the commit that holds the bytes
};

struct ChunkRef {
  Digest digest;
  std::uint64_t commit = 0;
};

struct DenseEntry {
  std::uint64_t size = 0;
  std::vector<ChunkRef> chunks;
  std::size_t chunk_bytes(std::size_t index) const {
    return index + 1 < chunks.size() ? kChunkBytes
                                     : static_cast<std::size_t>(size - index * kChunkBytes);
  }
};

using DenseTable = std::map<std::string, DenseEntry>;

// Pages are kept row by row. Each row remembers its digest, so the state digest after a commit
// costs the rows touched plus one small hash a row. Not thread-safe while it is changed.
class StateTable {
 public:
  // What it takes to take a change back: the entries as they were, oldest change first.
  using Undo = std::vector<std::pair<PageId, std::optional<PageEntry>>>;

  const PageEntry* find(const PageId& id) const;
  std::size_t size() const { return size_; }

  // Both append to `undo` if it is given. erase: false if the page was not listed.
  void set(const PageId& id, const PageEntry& entry, Undo* undo = nullptr);
  bool erase(const PageId& id, Undo* undo = nullptr);
  void revert(const Undo& undo);

  // visit(id, entry) in id order.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (const auto& [key, row] : rows_) {
      for (const auto& [tile, entry] : row.tiles) {
        visit(PageId{key.kind, key.pool, key.row, tile}, entry);
      }
    }
  }

  DenseTable& dense() { return dense_; }
  const DenseTable& dense() const { return dense_; }

  // The state digest of PageStore.
  Digest digest();

 private:
  struct Row {
    std::vector<std::pair<std::uint32_t, PageEntry>> tiles;  // ascending
    Digest digest;
    bool stale = true;
  };
  std::map<PageId, Row> rows_;  // keyed by the id of tile 0
  std::size_t size_ = 0;
  DenseTable dense_;
};

}  // namespace perennial::storage
