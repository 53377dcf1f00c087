// SPDX-License-Identifier: Apache-2.0
// Repairs the current state of a damaged store from a copy or from its own earlier commits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "perennial/storage/page_store.h"

namespace perennial::storage {

struct RepairOptions {
  // A copy of the store (see copy.h), or nothing.
  const PageReader* copy = nullptr;
  // Where no copy has a page's bytes, an earlier version of it may take its place. A frozen shard
  // that gets one no longer has its digest.
  bool allow_older = true;
  // Only looks and reports.
  bool dry_run = false;
  std::string note = {};  // of the commit
};

// One page or dense entry of the current state that cannot be read.
struct Repair {
  std::string what;   // the page, or "dense entry 'x'"
  std::string found;  // why it cannot be read, naming its file
  enum class By {
    copy,     // the very bytes that were lost
    older,    // an earlier version, of `commit`: what was learnt since is lost
    nothing,  // it stays damaged
  } by = By::nothing;
  std::uint64_t commit = 0;
};

struct RepairReport {
  std::uint64_t pages_read = 0;
  std::uint64_t dense_read = 0;
  std::vector<Repair> repairs;  // empty: the current state is intact
  // The commit that holds the repaired state; its number is 0 when none was made.
  CommitInfo commit;
  std::uint64_t unrepaired() const;
};

// Reads every page and dense entry of the current state; what is damaged is taken from the copy if
// that has the same digest, else (pages only, if allowed) from the newest earlier commit whose
// version is intact. Everything that could be repaired goes into one new commit; earlier commits
// stay as they are. Only damage (corruption) is repaired: any other failure to read is returned.
// invalid_argument: `copy` is no copy of this store. Nothing is written when
// nothing can be repaired.
Result<RepairReport> repair_store(PageStore& store, const RepairOptions& options = {});

}  // namespace perennial::storage
