// SPDX-License-Identifier: Apache-2.0
// PageCache: pages in memory frames, shared by threads that read, one that writes, and commits.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "perennial/core/pager_counters.h"
#include "perennial/storage/page_store.h"
#include "perennial/storage/spill_file.h"
#include "pool/eviction_policy.h"
#include "pool/frame_slab.h"
#include "pool/page_word.h"

namespace perennial {

// A limit of frames that is none.
inline constexpr std::uint32_t kUnlimited = kNoFrame - 1;

// What the cache has to ask about pages. Called from several threads at once.
class PageSource {
 public:
  virtual ~PageSource() = default;
  // The page's name in the store; keys ascend as names do.
  virtual storage::PageId id(PageKey page) const = 0;
  virtual storage::PageShape shape(storage::PageKind kind) const = 0;
  // The content of a page that was never written.
  virtual void fill_initial(PageKey page, std::span<std::byte> bytes) const = 0;
};

struct PageCacheOptions {
  PolicyKind policy = PolicyKind::s3_fifo;
  // Threads that read pages from the store and the spill file; cold reads want a deep queue.
  unsigned readers = 8;
  // Threads that compute initial values beside the caller; 0 = one a core.
  unsigned fillers = 0;
  // Changed pages at the end of the eviction order that are spilled ahead, so that victims are
  // clean when a frame is needed; 0 = none.
  std::uint32_t spill_ahead = 64;
  // Frames kept ready during a commit for pages that are written to while it runs.
  std::uint32_t shadow_frames = 128;
};

// Why a page is pinned.
enum class PinUse : std::uint8_t {
  read,   // counts as a use of the page
  again,  // a later pass over the same batch: not counted, or every page would look popular
  write,  // the page will change: as `again`
};

class PageCache;

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
  friend class PageCache;
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

  PageCache* cache_ = nullptr;
  bool writes_ = false;
  std::vector<Item> items_;
  struct Place {
    std::uint64_t page = 0;
    std::uint32_t item = 0;  // index + 1; 0: free
  };
  std::vector<Place> table_;  // open addressing
};

// Content of pages of two kinds, in frames of one size a kind, within a number of frames a kind.
//
// Pages are numbered within regions (a pool's generations). A hit touches one atomic word of the
// page (state, pins, uses, frame) and takes no lock; everything else happens under one mutex, which
// is never held over input, output, filling or copying.
//
// What differs from the store's current version (changed pages) is in a list of its own, so a
// commit's start costs O(changed pages). begin_epoch() fixes what a commit writes: the bytes of
// that instant. A later write to such a page first copies them to another frame (or, when there is
// none, to the spill file), until the commit has taken them.
//
// A changed page that leaves its frame is in the spill file, also while a commit writes it, until
// the commit has succeeded. A failed write to that file leaves the page where it is.
//
// Thread-safety: pin, release, prefetch, read_changed, payload functions and counters from any
// thread; begin_epoch, end_epoch and Exclusive from one thread at a time that holds no pins.
class PageCache {
 public:
  // `store`: what absent pages are read from; nullptr only if no page is stored and the frames have
  // no limit. Source and store must outlive the cache.
  PageCache(const PageSource& source, const storage::PageReader* store,
            const PageCacheOptions& options = {});
  // Payload functions that come later answer with an error; one that runs is waited for.
  ~PageCache();
  PageCache(const PageCache&) = delete;
  PageCache& operator=(const PageCache&) = delete;

  // While it lives no page is pinned, loaded or spilled: waits for that, and others wait for its
  // end. An epoch may be in flight. The members below that change the cache's shape need it.
  class Exclusive {
   public:
    explicit Exclusive(PageCache& cache);
    ~Exclusive();
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;

   private:
    PageCache& cache_;
  };
  // Frames of a kind: their size, and how many there may be. All pages of the kind leave their
  // frames if there are more, or of another size.
  storage::Status set_frames(storage::PageKind kind, std::size_t bytes, std::uint32_t limit);
  std::uint32_t add_region(std::uint32_t pages);
  // More pages in a region; moved(old) is where a page goes, in ascending order.
  void widen_region(std::uint32_t region, std::uint32_t pages,
                    const std::function<std::uint32_t(std::uint32_t)>& moved);
  // Takes the last add_region() back; the store must have no page of it.
  void remove_last_region();
  // The store has a version of a page that has none here.
  void set_stored(PageKey page);
  // Forgets a region's pages of one kind; the next commit removes what the store has, or will have
  // from the commit in flight.
  void drop(storage::PageKind kind, std::uint32_t region);

  // Pins groups of `group` pages each, in order, as many whole groups as fit, and returns how many
  // (at least one). Loads what is missing; shares loads with others. When not even the first group
  // fits beside what others hold, it lets go of everything and waits its turn. `experts`: for
  // PinUse::write, the experts that each group touches in its pages, one bit each, or empty.
  // invalid_argument: the first group has more pages of a kind than there may be frames. Other
  // errors name the page; nothing is pinned then, and every page is as it was.
  // `most`: further groups are left out rather than pin more pages of a kind than that.
  storage::Result<std::size_t> pin(std::span<const std::uint64_t> pages, std::size_t group,
                                   PinUse use, PinSet& set,
                                   std::span<const std::uint64_t> experts = {},
                                   std::uint32_t most = kNoFrame);
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
  std::uint32_t frame_limit(storage::PageKind kind) const;
  // Waits until nothing is loaded or spilled in the background.
  void wait_idle();
  PagerCounters counters() const;

 private:
  using Lock = std::unique_lock<std::mutex>;
  using Slot = storage::SpillFile::Slot;
  static constexpr std::uint32_t kNoEntry = kNoFrame;

  struct Region {
    std::uint32_t pages = 0;
    std::array<std::vector<std::atomic<std::uint64_t>>, 2> words;  // by kind
    std::array<std::vector<float*>, 2> frames;
    std::vector<std::atomic<std::uint64_t>> last_use[2];  // LRU only
    // Experts written to since the last begin_epoch, one bit each.
    std::array<std::vector<std::atomic<std::uint64_t>>, 2> touched;
    std::atomic<std::uint64_t> written = 0;  // weights pages stored or changed
  };
  struct Kind {
    std::size_t bytes = 0;
    std::uint32_t limit = 0;
    std::unique_ptr<FrameSlab> slab;
    std::unique_ptr<EvictionPolicy> policy;
    std::vector<std::uint64_t> page_of;  // by frame
    std::vector<std::uint32_t> free;
    std::vector<std::uint32_t> shadows;  // entries whose bytes are in a frame of their own
  };
  // A page that differs from the store's current version.
  struct Changed {
    bool dirty = false;              // since the last begin_epoch
    std::uint32_t entry = kNoEntry;  // in the epoch in flight
    std::optional<Slot> slot;        // the page's present content in the spill file
    std::uint32_t busy = 0;          // somebody reads its frame or slot without the mutex
  };
  // A page of the epoch in flight: `pending` until its payload was taken.
  enum class Taking : std::uint8_t { pending, moving, taken };
  struct Entry {
    std::uint64_t page = 0;
    std::uint64_t touched = 0;
    Taking taking = Taking::pending;
    bool detached = false;  // the bytes are no longer the page's, but in `frame` or `slot`
    bool dropped = false;   // the page is gone
    std::uint32_t frame = kNoFrame;
    std::optional<Slot> slot;
    storage::PageId id;
  };
  // Lets payload functions outlive the cache.
  struct Link;
  struct Load {
    std::uint64_t page = 0;
    std::uint32_t frame = 0;
    PageState from = PageState::initial;
    std::byte* bytes = nullptr;
    std::optional<Slot> slot;
    std::size_t item = 0;
    storage::Status status;
  };
  struct LoadBatch;
  enum class Want : std::uint8_t { demand, prefetch, clean };
  class Use;

  std::atomic<std::uint64_t>& word(PageKey page) const {
    return regions_[page.region]->words[kind_index(page.kind)][page.page];
  }
  std::span<std::byte> bytes(const Kind& kind, std::uint32_t frame) const;
  std::atomic<std::uint64_t>& touched(PageKey page) const {
    return regions_[page.region]->touched[kind_index(page.kind)][page.page];
  }
  static void update(std::atomic<std::uint64_t>& word, std::uint64_t clear, std::uint64_t set);
  static void set_state(std::atomic<std::uint64_t>& word, PageState state);
  void wait(Lock& lock);
  void notify(Lock& lock);
  Changed& changed(PageKey page);
  void set_dirty(Changed& changed, storage::PageKind kind, bool dirty);
  void forget(std::uint64_t page);
  void free_slot(std::optional<Slot>& slot);
  std::uint64_t resident_bytes() const;

  // Pinning (page_cache_pin.cc).
  void enter(bool writes, bool waited);
  void leave(PinSet& set);
  bool hit(PageKey page, PinUse use, std::uint64_t now, std::uint64_t& prefetch_hits);
  void unpin(PinSet& set, std::size_t from);
  storage::Result<std::size_t> attempt(std::span<const std::uint64_t> pages, std::size_t group,
                                       PinUse use, PinSet& set,
                                       std::span<const std::uint64_t> experts, bool waited,
                                       std::uint32_t most);
  storage::Result<bool> begin_load(Lock& lock, PinSet& set, std::size_t item, std::size_t& groups,
                                   std::vector<Load>& loads);
  storage::Status mark_written(PinSet& set);
  bool evicts_nothing() const;
  bool all_in_frames(std::span<const std::uint64_t> pages) const;
  bool write_dirty(std::span<const std::uint64_t> pages, std::size_t group,
                   std::span<const std::uint64_t> experts);
  friend class PinSet;

  // Loading (page_cache_load.cc).
  void start_load(PageKey page, std::uint32_t frame, std::uint64_t pins, Load& load);
  storage::Status fill(Load& load) const;
  void finish_load(Load& load, bool ahead);
  void run(std::vector<Load>& loads);
  boost::asio::thread_pool& readers();
  boost::asio::thread_pool& fillers();
  void prefetch_next();

  // Eviction and spilling (page_cache_evict.cc).
  storage::Result<std::uint32_t> acquire(Lock& lock, std::size_t kind, Want want);
  bool give_up_frame(PageKey page, std::uint32_t frame);
  storage::Result<Slot> write_slot(Lock& lock, std::uint64_t page,
                                   std::span<const std::byte> bytes);
  storage::Status spill(Lock& lock, PageKey page, std::uint32_t frame);
  storage::Result<bool> spill_shadow(Lock& lock, Kind& kind);
  void spill_ahead(std::size_t kind);

  // Epochs (page_cache_epoch.cc).
  storage::Result<bool> detach(Lock& lock, Changed& changed, PageKey page);
  void release_source(Entry& entry);
  void prepare_shadows(std::array<std::uint32_t, 2> wanted);
  static storage::Result<std::span<const std::byte>> payload_of(Link& link, std::uint64_t epoch,
                                                                std::uint32_t entry);
  storage::Result<std::span<const std::byte>> payload(std::uint64_t epoch, std::uint32_t entry,
                                                      std::vector<std::byte>& buffer);

  const PageSource& source_;
  const storage::PageReader* store_;
  PageCacheOptions options_;
  std::vector<std::unique_ptr<Region>> regions_;

  // Who is inside, and who wants to be alone. Read without the mutex, changed with sequential
  // consistency: either the one who waits sees the last one leave, or that one sees him wait.
  static constexpr std::uint32_t kExclusive = 1, kStarving = 2, kEpoch = 4;
  std::atomic<std::uint32_t> gate_ = 0;
  std::atomic<std::uint32_t> waiting_ = 0;
  std::atomic<std::uint64_t> active_ = 0;   // pin sets that hold or gather pins
  std::atomic<std::uint64_t> writing_ = 0;  // of these, for writing
  std::mutex turn_;                         // of the one who found no frame

  mutable std::mutex mutex_;
  std::condition_variable changed_something_;
  std::uint64_t events_ = 0;
  std::array<Kind, 2> kinds_;
  std::unordered_map<std::uint64_t, Changed> changed_;
  std::array<std::uint64_t, 2> dirty_{};  // of these, pages that are dirty, by kind
  std::unique_ptr<storage::SpillFile> spill_;
  std::deque<std::uint64_t> ahead_;  // pages to prefetch
  std::uint32_t background_ = 0;     // jobs that run or are queued
  bool spilling_ahead_ = false;
  std::array<bool, 2> preparing_{};  // frames for copies on write
  bool spill_failed_ = false;        // no more spilling ahead until a commit has made room
  bool stopping_ = false;

  std::uint64_t epoch_ = 0;
  bool in_epoch_ = false;
  std::vector<Entry> entries_;
  std::vector<storage::PageId> removed_, epoch_removed_;
  std::shared_ptr<Link> link_;

  std::atomic<std::uint64_t> now_ = 0;
  struct {
    std::atomic<std::uint64_t> hits, initialised, read, read_bytes, unspilled, prefetched,
        prefetch_hits, evicted, spilled, copied, waits, wait_ns, peak;
  } count_;

  std::once_flag readers_made_, fillers_made_;
  std::unique_ptr<boost::asio::thread_pool> readers_, fillers_;
};

}  // namespace perennial
