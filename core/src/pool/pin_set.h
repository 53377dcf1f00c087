// SPDX-License-Identifier: Apache-2.0
// The pages a caller of the page cache works on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace perennial {

struct CacheState;

// The pages a caller works on: they stay in their frames until this is released. A thread that
// holds one must not ask for another: it could wait for itself. Reused, it allocates nothing.
class PinSet {
 public:
  PinSet() = default;
  ~PinSet() { release(); }
  PinSet(const PinSet&) = delete;
  PinSet& operator=(const PinSet&) = delete;
  void release();

 private:
  friend class Pinning;
  struct Item {
    std::uint64_t page = 0;
    std::uint64_t touched = 0;
    std::size_t group = 0;    // the first that needs it
    std::uint32_t place = 0;  // in the table
    bool pinned = false;
  };
  // The item of a page; `added` when it was not there.
  std::size_t find_or_add(std::uint64_t page, std::size_t group, bool& added);
  void rehash();
  // Takes the pins of items [from, ...) back and forgets the items.
  void unpin(std::size_t from);

  CacheState* cache_ = nullptr;  // null while nothing is held
  bool writes_ = false;
  std::vector<Item> items_;
  struct Place {
    std::uint64_t page = 0;
    std::uint32_t item = 0;  // index + 1; 0: free
  };
  std::vector<Place> table_;  // open addressing
};

}  // namespace perennial
