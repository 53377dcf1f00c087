// SPDX-License-Identifier: Apache-2.0
// Which keys the commits of a catalog need: what reclaiming keeps and verifying reads.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backend.h"
#include "state.h"

namespace perennial::storage {

// Immutable once collected. Everything of commits above the newest collected one is kept.
class LiveSet {
 public:
  struct Page {
    PageId id;
    PageEntry entry;
    // A base that no table lists by itself any more: entry.digest is not known.
    bool base_only = false;
  };
  struct Chunk {
    Digest digest;
    std::size_t bytes = 0;
    std::string entry;  // a dense entry that uses it, and where
    std::size_t index = 0;
  };
  // What is live of one commit's keys.
  struct Commit {
    std::vector<Page> pages;  // ascending, one each
    std::vector<Chunk> chunks;
    std::uint64_t record_bytes = 0;  // 0: the record is not needed
    std::uint64_t bytes = 0;         // of all of it
    std::uint64_t keys() const {
      return pages.size() + chunks.size() + (record_bytes != 0 ? 1 : 0);
    }
    std::size_t tidy_at = 4096;  // pages at which duplicates are removed again
  };

  // Reads the records of all commits of `newest`'s catalog and of `pinned` ones, which readers may
  // have kept beyond it. Broken ones are passed to `broken` and left out; without it the first one
  // ends the collection.
  static Result<LiveSet> collect(
      const Backend& backend, const State& newest, const std::set<std::uint64_t>& pinned = {},
      const std::function<void(std::uint64_t commit, const Status&)>& broken = {});

  const std::map<std::uint64_t, Commit>& commits() const { return commits_; }
  std::uint64_t newest() const { return newest_; }
  bool keeps(const std::string& key) const;
  // Live bytes of commits [first, last].
  std::uint64_t bytes(std::uint64_t first, std::uint64_t last) const;
  // At most the bytes of a file that holds them.
  std::uint64_t file_bytes(std::uint64_t first, std::uint64_t last) const;

 private:
  void add(const PageId& id, const PageEntry& entry);
  void add(std::uint64_t commit, const Page& page);
  void add(const std::string& name, const DenseEntry& entry);
  void finish();
  std::map<std::uint64_t, Commit> commits_;
  std::uint64_t newest_ = 0;
};

}  // namespace perennial::storage
