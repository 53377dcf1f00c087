// SPDX-License-Identifier: Apache-2.0
// PageCache: pages in memory frames, shared by threads that read, one that writes, and commits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "perennial/core/pager_counters.h"
#include "perennial/storage/page_store.h"
#include "pool/page_table.h"
#include "pool/page_word.h"
#include "pool/pin_set.h"
#include "pool/s3_fifo.h"

namespace perennial {

struct PageCacheOptions {
  // Threads that read pages from the store and the spill file; cold reads want a deep queue.
  unsigned readers = 8;
  // Threads that compute initial values beside the caller; 0 = one a core.
  unsigned fillers = 0;
  // Changed pages at the end of the eviction order that are spilled ahead, so that victims are
  // clean when a frame is needed; 0 = none.
  std::uint32_t spill_ahead = 64;
  // Frames of a size kept ready during a commit for pages that are written to while it runs.
  std::uint32_t shadow_frames = 128;
};

// Why a page is pinned.
enum class PinUse : std::uint8_t {
  read,   // counts as a use of the page
  again,  // a later pass over the same batch: not counted, or every page would look popular
  write,  // the page will change: as `again`
};

// Pages to pin.
struct PinRequest {
  std::span<const std::uint64_t>
      pages;  // packed keys, in groups of `group` that are needed at once
  std::size_t group = 1;
  PinUse use = PinUse::read;
  // For PinUse::write, the experts that each group touches in its pages, one bit each, or empty.
  std::span<const std::uint64_t> experts = {};
  // Further groups are left out rather than pin more pages of a kind than that.
  std::uint32_t most = kNoFrame;
};

// The pages of any number of sources, in frames, within one budget of bytes (see Frames for who
// shares what). A hit touches one atomic word of the page (state, pins, uses, frame) and takes no
// lock; everything else happens under one mutex, which is never held over input, output, filling or
// copying.
//
// begin_epoch() fixes what a commit writes: the bytes of that instant, of all sources. A later
// write to such a page first copies them to another frame (or, when there is none, to the spill
// file), until the commit has taken them. A changed page that leaves its frame is in the spill
// file, also while a commit writes it, until the commit has succeeded. A failed write to that file
// leaves the page where it is.
//
// Its parts: Turns (waiting), PageTable (words), Frames (memory and order of eviction),
// ChangedPages and Epoch (commits), eviction.h, loading.h, copy_on_write.h, Pinning.
//
// Thread-safety: pin, release, prefetch, read_changed, payload functions and counters from any
// thread; begin_epoch, end_epoch and Exclusive from one thread at a time that holds no pins.
class PageCache {
 public:
  // `store`: what absent pages are read from; nullptr only if no page is stored and there is no
  // budget (0 bytes). Sources and store must outlive the cache.
  PageCache(const storage::PageReader* store, std::uint64_t budget_bytes,
            const PageCacheOptions& options = {});
  // Payload functions that come later answer with an error; one that runs is waited for.
  ~PageCache();
  PageCache(const PageCache&) = delete;
  PageCache& operator=(const PageCache&) = delete;

  // While it lives no page is pinned, loaded or spilled: waits for that, and others wait for its
  // end. An epoch may be in flight. The members that change regions need it.
  class Exclusive {
   public:
    explicit Exclusive(PageCache& cache);
    ~Exclusive();
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;

   private:
    CacheState& cache_;
  };
  // A region of a source, under the number that the source knows it by. Returns its number in keys.
  std::uint32_t add_region(const PageSource& source, std::uint32_t number, std::uint32_t pages);
  // The source's pages of a kind have another size; none of the region may be other than initial.
  void resize_pages(storage::PageKind kind, std::uint32_t region);
  // More pages in a region; moved(old) is where a page goes, in ascending order.
  void widen_region(std::uint32_t region, std::uint32_t pages,
                    const std::function<std::uint32_t(std::uint32_t)>& moved);
  // The region's source ends; what the store has stays, and what a commit in flight writes does.
  void remove_region(std::uint32_t region);
  // The store has a version of a page that has none here.
  void set_stored(PageKey page);
  // Forgets a region's pages of one kind; the next commit removes what the store has, or will have
  // from the commit in flight.
  void drop(storage::PageKind kind, std::uint32_t region);

  // Pins groups in order, as many whole groups as fit, and returns how many (at least one). Loads
  // what is missing; shares loads with others. When not even the first group fits beside what
  // others hold, it lets go of everything and waits its turn.
  // invalid_argument: the first group does not fit the budget. Other errors name the page; nothing
  // is pinned then, and every page is as it was.
  storage::Result<std::size_t> pin(const PinRequest& request, PinSet& set);
  // Loads pages in the background, as long as that takes no frame that is pinned or whose page was
  // named ahead and not used yet. Errors are left to the pin that meets them. The caller may hold
  // pins; while others wait for a frame, or to be alone, nothing is done.
  void prefetch(std::span<const std::uint64_t> pages);

  // Adds a write for every changed page, by ascending id, and the removed pages. Throws Error with
  // an epoch in flight. Waits for the end of pins for writing.
  void begin_epoch(storage::CommitRequest& request);
  bool epoch_in_flight() const;
  // Success: the pages are the store's unless they were written to meanwhile. Failure: all are
  // changed again, with what they hold now.
  void end_epoch(bool success);

  PageState state(PageKey page) const;
  bool written(PageKey page) const;              // changed, or in the store
  bool any_written(std::uint32_t region) const;  // of weights. O(1).
  // The bytes of a page that differs from the store's version; false: it does not.
  storage::Result<bool> read_changed(PageKey page,
                                     const std::function<void(std::span<const std::byte>)>& read);
  // Copies a page's content, whatever its state; the cache stays as it is. No thread may write to
  // the page meanwhile.
  storage::Status copy(PageKey page, std::span<std::byte> to);
  // What the kernels see of a region: a frame for each of its pages, null for those not in one.
  float* const* frames(storage::PageKind kind, std::uint32_t region) const;
  std::uint64_t budget_bytes() const;
  // Waits until nothing is loaded or spilled in the background.
  void wait_idle();
  PagerCounters counters() const;

 private:
  std::unique_ptr<CacheState> state_;
};

}  // namespace perennial
