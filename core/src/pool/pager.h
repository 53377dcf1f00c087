// SPDX-License-Identifier: Apache-2.0
// The cache of pages in memory frames between pool and store.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "perennial/core/pool.h"
#include "perennial/kernels/expert_id.h"
#include "perennial/storage/page_store.h"
#include "perennial/storage/spill_file.h"

namespace perennial {

// Where a page's content is. `initial` means never written: its content is the recipe's (weights)
// or zero (optimizer state).
enum class PageState : std::uint8_t {
  initial,   // no frame, never written
  absent,    // no frame, the store has it
  spilled,   // no frame, changed since the last commit, in the spill file
  resident,  // in a frame, equal to what the recipe or the store gives
  dirty,     // in a frame, changed since the last commit
};

constexpr bool in_frame(PageState state) {
  return state == PageState::resident || state == PageState::dirty;
}

// Both kinds, in the order of their ids.
inline constexpr std::array kPageKinds = {storage::PageKind::weights, storage::PageKind::state};
// No frame: the end of a list, or no answer.
inline constexpr std::uint32_t kNoFrame = std::numeric_limits<std::uint32_t>::max();

// A failure with the page it struck in front.
inline storage::Status about(const storage::PageId& id, const storage::Status& status) {
  return {status.code(), to_string(id) + ": " + status.message()};
}

// Frames of one size, cut from extents of huge-page memory that are given back at the end only.
class FrameSlab {
 public:
  explicit FrameSlab(std::size_t frame_bytes);
  ~FrameSlab();
  FrameSlab(const FrameSlab&) = delete;
  FrameSlab& operator=(const FrameSlab&) = delete;

  std::size_t frame_bytes() const { return frame_bytes_; }
  float* frame(std::uint32_t index) const;
  std::uint32_t frames() const { return frames_; }
  // Adds one frame; throws std::bad_alloc.
  std::uint32_t add();

 private:
  std::size_t frame_bytes_;
  std::size_t frames_per_extent_;
  std::uint32_t frames_ = 0;
  std::vector<std::byte*> extents_;
  std::size_t extent_bytes_ = 0;
};

// The pages a caller works on; they stay in their frames until this goes out of scope.
class PagePin {
 public:
  PagePin() = default;
  ~PagePin() { release(); }
  PagePin(const PagePin&) = delete;
  PagePin& operator=(const PagePin&) = delete;
  void release();

 private:
  friend class Pager;
  struct Item {
    storage::PageKind kind;
    std::uint32_t generation;
    std::uint32_t page;
  };
  class Pager* pager_ = nullptr;
  std::vector<Item> items_;
};

// Single-threaded; fills frames in parallel inside. Least recently used clean or dirty frames go
// first; dirty ones to the spill file. Half of the frames are for weights and half for state when
// an optimizer is attached: a budget of n (weights + state) pages gives n frames of each.
class Pager {
 public:
  Pager(std::uint32_t pool, const PoolOptions& options, storage::PageStore* store,
        std::int64_t budget_bytes);
  ~Pager();

  std::int64_t budget_bytes() const { return budget_bytes_; }
  std::size_t weights_page_bytes() const { return page_bytes(storage::PageKind::weights); }
  std::size_t state_page_bytes() const { return page_bytes(storage::PageKind::state); }
  std::int64_t state_floats() const { return state_floats_; }

  // Optimizer state of `floats` an expert (0: none). Refused while state pages of another size
  // exist. Fewer weight frames fit the budget then; see require_slots.
  void attach_state(std::int64_t floats);
  // Throws InvalidOptions when fewer than `slots` pages of each kind fit the budget.
  void require_slots(std::int64_t slots) const;

  // Follows the pool: a new generation, or wider rows of the last one.
  void add_generation(const Generation& generation);
  void widen_generation(const Generation& generation);
  // Pages that the store's current state has become absent instead of initial.
  void list_stored();

  // Pins the weight pages of tokens [begin, end) of ids (tokens, slots), as many whole tokens as
  // fit (at least one); returns the end of what was pinned.
  std::int64_t pin_tokens(const std::int64_t* ids, std::int64_t slots, std::int64_t begin,
                          std::int64_t end, PagePin& pin);
  // Pins weight and state pages of ascending ids, as many as fit (at least one), for writing: they
  // become dirty. Returns how many ids.
  std::size_t pin_for_update(std::span<const std::int64_t> ids, PagePin& pin);
  kernels::FrameTable table(storage::PageKind kind) const;

  // Forgets the optimizer state of a generation; what the store has of it is dropped at the next
  // commit.
  void drop_state(std::uint32_t generation);
  // Digest of a written page (in a frame, spilled or stored); the page's state must not be initial.
  struct WrittenPage {
    std::uint32_t row, tile;
    storage::Digest digest;
  };
  std::vector<WrittenPage> written_pages(std::uint32_t generation);
  bool any_written(std::uint32_t generation) const;

  void add_to_commit(storage::CommitRequest& request);
  void committed();
  PagerCounters counters() const;

  // What generations that come and go as a whole need; see the members of Pool that call them.
  void copy_page(std::uint32_t generation, std::uint32_t page, std::span<float> payload) const;
  void initial_page(const Generation& generation, std::uint32_t page,
                    std::span<float> payload) const;
  // Gives a page of weights new content; it becomes dirty.
  void install_page(std::uint32_t generation, std::uint32_t page, std::span<const float> payload);
  // Takes the last add_generation() back; the store must have no page of it.
  void remove_last_generation();

 private:
  struct Page {
    PageState state = PageState::initial;
    bool stored = false;  // the store's current state has a version of it
    std::uint32_t frame = 0;
    std::uint64_t mark = 0;  // serial of the last pin that took it
    std::uint32_t pins = 0;
    storage::SpillFile::Slot slot = 0;
  };
  struct Frame {
    std::uint32_t generation = 0;
    std::uint32_t page = 0;
    std::uint32_t newer = 0, older = 0;  // LRU list; kNoFrame ends it
  };
  struct Kind {
    std::unique_ptr<FrameSlab> slab;
    std::vector<Frame> frames;
    std::vector<std::uint32_t> free_frames;
    std::uint32_t newest = 0, oldest = 0;
  };
  struct Table {
    std::uint32_t first_row = 0, rows = 0, tiles = 0;
    Recipe recipe;
    bool frozen = false;
    std::array<std::vector<Page>, 2> pages;     // by kind
    std::array<std::vector<float*>, 2> frames;  // what the kernels see
  };
  struct Missing {
    std::uint32_t generation, page;
  };

  static std::size_t index(storage::PageKind kind) { return static_cast<std::size_t>(kind); }
  std::size_t page_bytes(storage::PageKind kind) const;
  storage::PageShape shape(storage::PageKind kind) const;
  storage::PageId page_id(storage::PageKind kind, const Table& table, std::uint32_t page) const;
  std::uint32_t generation_of(std::uint32_t row) const;
  std::uint32_t max_frames() const;
  std::uint64_t resident_bytes() const;
  bool take(storage::PageKind kind, std::uint32_t generation, std::uint32_t page, PagePin& pin,
            std::vector<Missing>& missing);
  std::uint32_t free_frame(storage::PageKind kind);
  void fill(storage::PageKind kind, const std::vector<Missing>& missing, PagePin& pin);
  void fill_initial(storage::PageKind kind, const Table& table, std::uint32_t page,
                    float* frame) const;
  void evict(storage::PageKind kind, std::uint32_t frame);
  void drop_frame(storage::PageKind kind, std::uint32_t generation, std::uint32_t page);
  void unlink(Kind& kind, std::uint32_t frame);
  void link_newest(Kind& kind, std::uint32_t frame);
  void unpin(const PagePin::Item& item);
  std::span<const std::byte> payload(storage::PageKind kind, Table& table, std::uint32_t page);
  friend class PagePin;

  std::uint32_t pool_;
  PoolOptions options_;
  std::int64_t tile_;
  storage::PageStore* store_;
  std::int64_t budget_bytes_;
  std::int64_t state_floats_ = 0;
  std::vector<Table> tables_;
  std::array<std::vector<kernels::PageSpan>, 2> spans_;
  std::array<Kind, 2> kinds_;
  std::unique_ptr<storage::SpillFile> spill_;
  std::vector<storage::PageId> removed_;  // state pages to drop at the next commit
  std::vector<std::byte> payload_buffer_;
  std::uint64_t serial_ = 0;
  PagerCounters counters_;
};

}  // namespace perennial
