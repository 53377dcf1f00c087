// SPDX-License-Identifier: Apache-2.0
// The pager: what the page cache holds of a pool, by generation, row and tile.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "perennial/core/page_memory.h"
#include "perennial/core/pool.h"
#include "perennial/kernels/expert_id.h"
#include "perennial/storage/page_store.h"
#include "pool/page_cache.h"

namespace perennial {

// The pages a caller works on; they stay in their frames until this is released. A thread holds one
// at a time. Reused, it allocates nothing.
class PagePin {
 public:
  void release() { set_.release(); }

 private:
  friend class Pager;
  PinSet set_;
  std::vector<std::uint64_t> pages_;
  std::vector<std::uint64_t> experts_;  // touched, by group of pages
  std::vector<std::size_t> ends_;       // of ids, by group of pages
};

// Knows the pool's geometry, recipes and generations. Pages of weights and of optimizer state are
// in the frames of the memory that it shares.
//
// Thread-safety: pins, prefetching, payloads and counters as PageCache; the other members are for
// one thread, and wait until no other has pins. All may be used while a commit is in flight.
class Pager {
 public:
  Pager(std::uint32_t pool, const PoolOptions& options, PageMemory& memory);
  ~Pager();
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;

  std::size_t weights_page_bytes() const { return page_bytes(storage::PageKind::weights); }
  std::size_t state_page_bytes() const { return page_bytes(storage::PageKind::state); }
  std::int64_t state_floats() const { return state_floats_; }

  // Optimizer state of `floats` an expert (0: none). Refused while state pages of another size
  // exist. Fewer pages fit the budget then; see require_slots.
  void attach_state(std::int64_t floats);
  // Throws InvalidOptions when fewer than `slots` pages of each kind fit the budget.
  void require_slots(std::int64_t slots) const;

  // Follows the pool: a new generation, or wider rows of the last one.
  void add_generation(const Generation& generation);
  void widen_generation(const Generation& generation);
  // Those of the listed pages, which ascend, that are the pool's become absent instead of initial.
  void take_stored(std::span<const storage::PageId> listed);

  // Pins the weight pages of tokens [begin, end) of ids (tokens, slots), as many whole tokens as
  // fit (at least one); returns the end of what was pinned.
  std::int64_t pin_tokens(const std::int64_t* ids, std::int64_t slots, std::int64_t begin,
                          std::int64_t end, PagePin& pin, PinUse use = PinUse::read);
  // Starts to load the weight pages of the tokens that pin_tokens(begin, end) would take, in the
  // background. Does nothing without a budget.
  void prefetch_tokens(const std::int64_t* ids, std::int64_t slots, std::int64_t begin,
                       std::int64_t end);
  // Pins weight and state pages of ascending ids, as many as fit (at least one) up to some thousand
  // pages, for writing: they become dirty. Returns how many ids.
  std::size_t pin_for_update(std::span<const std::int64_t> ids, PagePin& pin);
  kernels::FrameTable table(storage::PageKind kind) const;

  // Forgets the optimizer state of a generation; what the store has of it is dropped at the next
  // commit.
  void drop_state(std::uint32_t generation);
  // The pages of weights that are not initial (in a frame, spilled or stored), ascending.
  std::vector<WrittenPage> written_pages(std::uint32_t generation);
  bool any_written(std::uint32_t generation) const {
    return cache_.any_written(tables_.at(generation).region);
  }

  // What generations that come and go as a whole need; see the members of Pool that call them.
  // copy_page: thread-safe, as payloads are.
  void copy_page(std::uint32_t generation, std::uint32_t page, std::span<std::byte> payload,
                 storage::PageKind kind = storage::PageKind::weights) const;
  void initial_page(const Generation& generation, std::uint32_t page,
                    std::span<std::byte> payload) const;
  // Pages that are not initial, ascending.
  std::vector<std::uint32_t> held_pages(std::uint32_t generation, storage::PageKind kind) const;
  // Gives a page new content; it becomes dirty.
  void install_page(std::uint32_t generation, std::uint32_t page,
                    std::span<const std::byte> payload,
                    storage::PageKind kind = storage::PageKind::weights);
  // Takes the last add_generation() back; the store must have no page of it.
  void remove_last_generation();

 private:
  struct Table {
    std::uint32_t region = 0;  // in the cache
    std::uint32_t first_row = 0, rows = 0, tiles = 0;
    Recipe recipe;
    std::uint32_t pages() const { return rows * tiles; }
  };
  class Source;

  std::size_t page_bytes(storage::PageKind kind) const { return shape(kind).payload_bytes(); }
  storage::PageShape shape(storage::PageKind kind) const;
  storage::PageId page_id(storage::PageKind kind, std::uint32_t generation,
                          std::uint32_t page) const;
  PageKey key(storage::PageKind kind, std::uint32_t generation, std::uint32_t page) const {
    return {kind, tables_.at(generation).region, page};
  }
  std::uint32_t generation_of(std::uint32_t row) const;
  std::uint64_t page_of(std::int64_t id) const;  // of weights, packed
  std::int64_t pairs() const;
  std::int64_t token_limit(std::int64_t slots) const;
  void show_frames();
  void fill_initial(const Table& table, std::uint32_t page, std::byte* frame) const;

  std::uint32_t pool_;
  PoolOptions options_;
  std::int64_t tile_;
  const storage::PageReader* store_;
  std::int64_t budget_bytes_;
  PageCache& cache_;
  std::int64_t state_floats_ = 0;
  std::vector<Table> tables_;
  std::array<std::vector<kernels::PageSpan>, 2> spans_;
  std::unique_ptr<Source> source_;
};

}  // namespace perennial
