// SPDX-License-Identifier: Apache-2.0
// The words of all pages, by region: where each page's content is.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "perennial/storage/page.h"
#include "pool/page_word.h"

namespace perennial {

// What the cache asks about pages of a region. `page.region` is the number that the source gave the
// region in PageTable::add(). Called from several threads at once.
class PageSource {
 public:
  virtual ~PageSource() = default;
  // The page's name in the store; no two pages of all sources have the same.
  virtual storage::PageId id(PageKey page) const = 0;
  // Pages of a kind without bytes do not exist.
  virtual storage::PageShape shape(storage::PageKind kind) const = 0;
  // The content of a page that was never written.
  virtual void fill_initial(PageKey page, std::span<std::byte> bytes) const = 0;
};

// Pages are numbered within regions: a generation of a pool is one. A hit touches one word here.
//
// Thread-safety: words and bits are atomic; the pointers to frames change under the cache's mutex;
// regions come, go and widen while nobody else is in the cache (Turns::be_alone).
class PageTable {
 public:
  // The pages of one kind in a region.
  struct Pages {
    std::size_t bytes = 0;   // of a page
    std::uint32_t size = 0;  // of its frame, as Frames numbers sizes
    std::vector<std::atomic<std::uint64_t>> words;
    std::vector<float*> frames;  // what the kernels see; null for a page in none
    // Experts written to since the last begin_epoch, one bit each.
    std::vector<std::atomic<std::uint64_t>> touched;
  };
  struct Region {
    const PageSource* source = nullptr;
    std::uint32_t number = 0;  // at the source
    std::uint32_t pages = 0;
    std::array<Pages, 2> kinds;
    std::atomic<std::uint64_t> written = 0;  // pages of weights stored or changed
  };

  // A region of pages that were never written, all in the state initial. Its number here.
  std::uint32_t add(const PageSource& source, std::uint32_t number, std::uint32_t pages);
  void remove(std::uint32_t region) { regions_[region].reset(); }
  // More pages; moved(old) is where a page goes, in ascending order.
  void widen(std::uint32_t region, std::uint32_t pages,
             const std::function<std::uint32_t(std::uint32_t)>& moved);

  Region& region(std::uint32_t number) const { return *regions_[number]; }
  Pages& pages(PageKey page) const { return regions_[page.region]->kinds[kind_index(page.kind)]; }
  std::atomic<std::uint64_t>& word(PageKey page) const { return pages(page).words[page.page]; }
  std::atomic<std::uint64_t>& touched(PageKey page) const { return pages(page).touched[page.page]; }
  PageState state(PageKey page) const { return page_word::state(word(page).load()); }

  storage::PageId id(PageKey page) const;
  storage::PageShape shape(PageKey page) const;
  void fill_initial(PageKey page, std::span<std::byte> bytes) const;

 private:
  std::vector<std::unique_ptr<Region>> regions_;  // null: the number is free
};

// Changes bits of a word that others change meanwhile.
inline void update_word(std::atomic<std::uint64_t>& word, std::uint64_t clear, std::uint64_t set) {
  std::uint64_t old = word.load(std::memory_order_relaxed);
  while (!word.compare_exchange_weak(old, (old & ~clear) | set, std::memory_order_acq_rel,
                                     std::memory_order_relaxed)) {
  }
}

inline void set_state(std::atomic<std::uint64_t>& word, PageState state) {
  update_word(word, page_word::kState, page_word::of(state));
}

}  // namespace perennial
