// SPDX-License-Identifier: Apache-2.0
// The tables of a state: which commit holds each page and each chunk of dense state.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
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
  // A delta: the commit that holds the whole version it is based on (0: this is one), and which
  // experts it replaces.
  std::uint64_t base = 0;
  std::uint64_t changed = 0;
  bool is_delta() const { return base != 0; }
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

// Immutable once built, so that readers need no lock; rows are shared between the states of
// neighbouring commits.
class StateTable {
 public:
  class Builder;

  const PageEntry* find(const PageId& id) const;
  std::size_t size() const { return size_; }
  const DenseTable& dense() const { return dense_; }

  // visit(id, entry) in id order.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (const auto& [key, row] : rows_) {
      for (const auto& [tile, entry] : row->tiles) {
        visit(PageId{key.kind, key.pool, key.row, tile}, entry);
      }
    }
  }

  // The state digest of PageStore. O(rows + dense chunks).
  Digest digest() const;

 private:
  struct Row {
    std::vector<std::pair<std::uint32_t, PageEntry>> tiles;  // ascending
    Digest digest;
  };
  // Ascending; keyed by the id of tile 0.
  std::vector<std::pair<PageId, std::shared_ptr<const Row>>> rows_;
  std::size_t size_ = 0;
  DenseTable dense_;
};

// Makes the next table out of one. Cost: O(rows) and the pages of the rows touched.
class StateTable::Builder {
 public:
  explicit Builder(const StateTable& base = {}) : base_(base) {}
  void set(const PageId& id, const PageEntry& entry);
  // False if the page was not listed.
  bool erase(const PageId& id);
  void set_dense(DenseTable dense) { base_.dense_ = std::move(dense); }
  StateTable build();

 private:
  Row& touch(const PageId& row);
  StateTable base_;
  std::map<PageId, Row> touched_;
};

}  // namespace perennial::storage
