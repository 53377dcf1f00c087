// SPDX-License-Identifier: Apache-2.0
// The pages that differ from the store's version, and those of the commit in flight.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "perennial/storage/page.h"
#include "perennial/storage/spill_file.h"
#include "pool/s3_fifo.h"

namespace perennial {

inline constexpr std::uint32_t kNoEntry = kNoFrame;

// A page that differs from the store's current version.
struct ChangedPage {
  using Slot = storage::SpillFile::Slot;
  bool dirty = false;              // since the last epoch began
  std::uint32_t entry = kNoEntry;  // in the epoch in flight
  std::optional<Slot> slot;        // the page's present content in the spill file
  std::uint32_t busy = 0;          // somebody reads its frame or slot without the mutex
};

// A list of its own, so that an epoch begins in O(changed pages). Records keep their addresses.
class ChangedPages {
 public:
  ChangedPage* find(std::uint64_t page) {
    const auto found = pages_.find(page);
    return found == pages_.end() ? nullptr : &found->second;
  }
  ChangedPage& at(std::uint64_t page) { return pages_.at(page); }
  bool contains(std::uint64_t page) const { return pages_.contains(page); }
  std::size_t size() const { return pages_.size(); }
  auto begin() const { return pages_.begin(); }
  auto end() const { return pages_.end(); }
  // The record of a page, and whether it is new.
  std::pair<ChangedPage*, bool> add(std::uint64_t page) {
    const auto [found, added] = pages_.try_emplace(page);
    return {&found->second, added};
  }
  // `bytes` of the page.
  void set_dirty(ChangedPage& page, std::size_t bytes, bool dirty) {
    if (page.dirty != dirty) dirty_bytes_ += dirty ? bytes : std::uint64_t{0} - bytes;
    page.dirty = dirty;
  }
  std::uint64_t dirty_bytes() const { return dirty_bytes_; }
  // A page that is not dirty and has no slot.
  void erase(std::uint64_t page) { pages_.erase(page); }
  template <class Renamed>
  void rename(const Renamed& renamed) {
    std::unordered_map<std::uint64_t, ChangedPage> pages;
    while (!pages_.empty()) {
      auto node = pages_.extract(pages_.begin());
      node.key() = renamed(node.key());
      pages.insert(std::move(node));
    }
    pages_ = std::move(pages);
  }

 private:
  std::unordered_map<std::uint64_t, ChangedPage> pages_;
  std::uint64_t dirty_bytes_ = 0;
};

// What the commit in flight writes: the bytes that pages had when the epoch began.
//
// Invariants, while an epoch is in flight:
// - An entry whose page is as it was has its bytes where the page has them: in its frame, or in its
//   slot. Once the page was written to or is gone, the entry is detached: it has a frame or a slot
//   of its own until its payload is taken.
// - `shadows` are the entries with a frame of their own.
// - Only the one who made an entry `moving` may change its frame and slot.
struct Epoch {
  using Slot = storage::SpillFile::Slot;
  enum class Taking : std::uint8_t { pending, moving, taken };  // of the payload
  struct Entry {
    std::uint64_t page = 0;
    storage::PageId id;
    std::uint32_t size = 0;  // of the frame
    std::uint64_t touched = 0;
    Taking taking = Taking::pending;
    bool detached = false;
    bool dropped = false;  // the page is gone
    std::uint32_t frame = kNoFrame;
    std::optional<Slot> slot;
  };

  // It is the one in flight.
  bool writes(std::uint64_t epoch) const { return in_flight && number == epoch; }

  bool in_flight = false;
  std::uint64_t number = 0;
  std::vector<Entry> entries;  // ascending by id
  std::vector<std::uint32_t> shadows;
  std::vector<storage::PageId> removed;   // that the next epoch removes from the store
  std::vector<storage::PageId> removing;  // that this one does
};

}  // namespace perennial
