// SPDX-License-Identifier: Apache-2.0
// The memory that the pools of a store share for their pages: one budget, one spill file, one set
// of reader threads.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "perennial/core/pager_counters.h"
#include "perennial/storage/page_store.h"

namespace perennial {

class PageCache;

// Frames of pages of equal size serve all pools, and a pool that is idle lends its frames to those
// that are busy. The budget counts the bytes of all frames: weights, optimizer state, and copies
// for a commit. It changes no bit; too small a one for a token of some layer is refused by the pool
// that uses it, with the figures. (The system maps memory in pages of its own, so the process may
// hold somewhat more.)
//
// Pools share its ownership. Thread-safety: counters() from any thread; the rest, and all members
// of its pools that add, change or commit generations, from one thread at a time. Threads that only
// retrieve experts may use other pools meanwhile.
class PageMemory {
 public:
  // `store`: what pages are read from, and where the spill file is; it must outlive this. Null:
  // everything stays in memory. budget_bytes: 0 = as much as the pools need; without a store it
  // must be 0. Throws InvalidOptions.
  PageMemory(const storage::PageReader* store, std::int64_t budget_bytes);
  ~PageMemory();
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;

  const storage::PageReader* store() const { return store_; }
  std::int64_t budget_bytes() const { return budget_bytes_; }
  // Of all pools together, since this was made.
  PagerCounters counters() const;

  // Adds the pages of all pools that changed since the last commit to `request`, in the order of
  // their ids, with their bytes of this instant: training may go on while a store's thread writes
  // them. The records of the pools come after (Pool::add_to_commit). Call committed() when the
  // commit has succeeded, or commit_failed() when it has not, or was given up: then what it had
  // belongs to the next one, with the content it has by then. Until either, another add_to_commit()
  // throws Error; everything else works. Cost: O(pages changed); writing to a page before the store
  // took its bytes copies it.
  void add_to_commit(storage::CommitRequest& request);
  void committed();
  void commit_failed();
  bool commit_in_flight() const;

  // For the pools. A pool says how its pages are brought up to date before a commit. Throws Error
  // when another of its number is here.
  void join(std::uint32_t pool, std::function<void()> bring_up_to_date);
  void leave(std::uint32_t pool) { pools_.erase(pool); }
  PageCache& cache() { return *cache_; }

 private:
  const storage::PageReader* store_;
  std::int64_t budget_bytes_;
  std::map<std::uint32_t, std::function<void()>> pools_;
  std::unique_ptr<PageCache> cache_;
};

}  // namespace perennial
