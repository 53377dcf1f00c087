// SPDX-License-Identifier: Apache-2.0
// What changed from one state to another.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "perennial/storage/page_reader.h"

namespace perennial::storage {

// Lists ascend.
struct StateDiff {
  std::vector<PageId> added;
  std::vector<PageId> removed;
  std::vector<PageId> changed;
  // Of added, removed and changed weights pages: experts whose bytes differ.
  std::uint64_t experts = 0;
  std::uint64_t bytes = 0;  // of all kinds of pages: records that differ, and of dense entries
  std::vector<std::string> dense_added;
  std::vector<std::string> dense_removed;
  std::vector<std::string> dense_changed;
  bool empty() const {
    return added.empty() && removed.empty() && changed.empty() && dense_added.empty() &&
           dense_removed.empty() && dense_changed.empty();
  }
};

// Compares page tables by digest, then the bytes of the pages that changed, expert by expert. Cost:
// reads changed pages twice; added and removed ones not at all. Of a changed dense entry the size
// of the newer one counts.
Result<StateDiff> diff_states(const PageReader& before, const PageReader& after);

}  // namespace perennial::storage
