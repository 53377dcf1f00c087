// SPDX-License-Identifier: Apache-2.0
// What the parts of the page cache share.
#pragma once

#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "perennial/storage/page_store.h"
#include "perennial/storage/spill_file.h"
#include "pool/epoch.h"
#include "pool/frames.h"
#include "pool/page_cache.h"
#include "pool/page_table.h"
#include "pool/turns.h"

namespace perennial {

// Threads of the background, made when they are first needed.
class Workers {
 public:
  Workers(unsigned readers, unsigned fillers);
  unsigned count_readers() const { return reader_count_; }
  unsigned count_fillers() const { return filler_count_; }
  boost::asio::thread_pool& readers();  // they read pages, and write to the spill file
  boost::asio::thread_pool& fillers();  // they compute initial values
  void join();

 private:
  unsigned reader_count_, filler_count_;
  std::once_flag readers_made_, fillers_made_;
  std::unique_ptr<boost::asio::thread_pool> readers_, fillers_;
};

// What jobs in the background are to do.
struct Background {
  std::deque<std::uint64_t> ahead;  // pages to load before they are asked for
  bool spilling = false;            // a job spills pages ahead
  std::vector<bool> preparing;      // by size of frames: a job adds frames for copies
  bool spill_failed = false;        // nothing more is spilled ahead until a commit has made room
  bool stopping = false;
};

struct CacheCounts {
  std::atomic<std::uint64_t> hits = 0, initialised = 0, read = 0, read_bytes = 0, unspilled = 0,
                             prefetched = 0, prefetch_hits = 0, evicted = 0, spilled = 0,
                             copied = 0;
};

// Lets payload functions outlive the cache.
struct CacheLink;

// The state of a page is in its word (see PageState); of what the word does not say:
// - `changed` has exactly the pages that differ from the store's version. One of them that is in no
//   frame has a slot in the spill file, also while a commit writes it, until that has succeeded.
// - A page that is in a frame and may leave it is in the order of its frame's size.
struct CacheState {
  CacheState(const storage::PageReader* from, std::uint64_t budget, const PageCacheOptions& with);

  const storage::PageReader* const store;
  const PageCacheOptions options;
  Turns turns;
  PageTable table;
  Frames frames PERENNIAL_GUARDED_BY(turns.mutex);
  ChangedPages changed PERENNIAL_GUARDED_BY(turns.mutex);
  Epoch epoch PERENNIAL_GUARDED_BY(turns.mutex);
  Background background PERENNIAL_GUARDED_BY(turns.mutex);
  std::unique_ptr<storage::SpillFile> spill PERENNIAL_GUARDED_BY(turns.mutex);
  const std::uint64_t budget_bytes;  // 0: none
  const bool evicts;                 // there is one
  CacheCounts count;
  const std::shared_ptr<CacheLink> link;
  Workers workers;
};

// The bytes of a page's frame.
std::span<std::byte> frame_bytes(CacheState& cache, PageKey page, std::uint32_t frame)
    PERENNIAL_REQUIRES(cache.turns.mutex);
// The record of a page that is about to differ from the store's version.
ChangedPage& differs(CacheState& cache, PageKey page) PERENNIAL_REQUIRES(cache.turns.mutex);
// A page equals the store's version from now on, or is gone.
void forget_change(CacheState& cache, PageKey page) PERENNIAL_REQUIRES(cache.turns.mutex);
void free_slot(CacheState& cache, std::optional<ChangedPage::Slot>& slot)
    PERENNIAL_REQUIRES(cache.turns.mutex);

}  // namespace perennial
