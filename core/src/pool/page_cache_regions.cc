// SPDX-License-Identifier: Apache-2.0
// Regions come, go, widen, and forget their pages.
#include <algorithm>
#include <utility>

#include "pool/cache_state.h"
#include "pool/page_cache.h"

namespace perennial {

using storage::MutexLock;
using storage::PageKind;

namespace {

// Takes a region's pages of a kind out of the order of eviction, to forget them.
void leave_order(CacheState& cache, PageKind kind, std::uint32_t region)
    PERENNIAL_REQUIRES(cache.turns.mutex) {
  cache.frames.remove_if([kind, region](std::uint64_t packed) {
    const PageKey page = PageKey::of(packed);
    return page.kind == kind && page.region == region;
  });
}

// Forgets a page, but for what a commit in flight writes of it. True when the store has a version,
// or will have one.
bool forget(CacheState& cache, PageKey page) PERENNIAL_REQUIRES(cache.turns.mutex) {
  PageTable::Pages& pages = cache.table.pages(page);
  ChangedPage* const changed = cache.changed.find(page.packed());
  while (changed != nullptr && changed->busy > 0) cache.turns.wait();
  const std::uint64_t old = pages.words[page.page].load();
  bool stored = (old & page_word::kStored) != 0;
  std::uint32_t frame = in_frame(page_word::state(old)) ? page_word::frame(old) : kNoFrame;
  if (changed != nullptr) {
    if (changed->entry != kNoEntry) {
      Epoch::Entry& entry = cache.epoch.entries[changed->entry];
      entry.dropped = true;
      stored = true;
      if (!entry.detached && entry.taking != Epoch::Taking::taken) {
        entry.detached = true;
        std::swap(entry.slot, changed->slot);
        if (!entry.slot) {
          entry.frame = std::exchange(frame, kNoFrame);
          cache.epoch.shadows.push_back(changed->entry);
        }
      }
    }
    forget_change(cache, page);
  }
  if (frame != kNoFrame) cache.frames.put_back(pages.size, frame);
  if (page.kind == PageKind::weights && (changed != nullptr || stored)) {
    --cache.table.region(page.region).written;
  }
  pages.frames[page.page] = nullptr;
  pages.touched[page.page].store(0);
  pages.words[page.page].store(0);
  return stored;
}

// The next commit removes nothing of these pages.
void keep_in_store(CacheState& cache, PageKind kind, std::uint32_t region)
    PERENNIAL_REQUIRES(cache.turns.mutex) {
  if (cache.epoch.removed.empty() && cache.epoch.removing.empty()) return;
  std::vector<storage::PageId> kept;  // ascending
  for (std::uint32_t page = 0; page < cache.table.region(region).pages; ++page) {
    kept.push_back(cache.table.id({kind, region, page}));
  }
  for (std::vector<storage::PageId>* removed : {&cache.epoch.removed, &cache.epoch.removing}) {
    std::erase_if(*removed, [&kept](const storage::PageId& id) {
      return std::binary_search(kept.begin(), kept.end(), id);
    });
  }
}

void set_size(CacheState& cache, PageKey page) PERENNIAL_REQUIRES(cache.turns.mutex) {
  PageTable::Pages& pages = cache.table.pages(page);
  pages.bytes = cache.table.shape(page).payload_bytes();
  if (pages.bytes > 0) pages.size = cache.frames.size_of(pages.bytes);
}

}  // namespace

PageCache::Exclusive::Exclusive(PageCache& cache) : cache_(*cache.state_) {
  const MutexLock lock(cache_.turns.mutex);
  cache_.background.ahead.clear();
  cache_.turns.be_alone();
}

PageCache::Exclusive::~Exclusive() {
  const MutexLock lock(cache_.turns.mutex);
  cache_.turns.admit_all();
}

std::uint32_t PageCache::add_region(const PageSource& source, std::uint32_t number,
                                    std::uint32_t pages) {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  const std::uint32_t region = cache.table.add(source, number, pages);
  for (const PageKind kind : kPageKinds) set_size(cache, {kind, region, 0});
  return region;
}

void PageCache::resize_pages(PageKind kind, std::uint32_t region) {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  set_size(cache, {kind, region, 0});
}

void PageCache::widen_region(std::uint32_t region, std::uint32_t pages,
                             const std::function<std::uint32_t(std::uint32_t)>& moved) {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  const auto renamed = [&](std::uint64_t packed) {
    PageKey page = PageKey::of(packed);
    if (page.region == region) page.page = moved(page.page);
    return page.packed();
  };
  cache.table.widen(region, pages, moved);
  cache.frames.rename(renamed);
  cache.changed.rename(renamed);
  for (Epoch::Entry& entry : cache.epoch.entries) {
    if (!entry.dropped) entry.page = renamed(entry.page);
  }
}

void PageCache::remove_region(std::uint32_t region) {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  for (const PageKind kind : kPageKinds) {
    leave_order(cache, kind, region);
    for (std::uint32_t page = 0; page < cache.table.region(region).pages; ++page) {
      (void)forget(cache, {kind, region, page});
    }
    keep_in_store(cache, kind, region);
  }
  cache.table.remove(region);
  cache.turns.notify();
}

void PageCache::set_stored(PageKey page) {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  cache.table.word(page).store(page_word::of(PageState::absent) | page_word::kStored);
  if (page.kind == PageKind::weights) ++cache.table.region(page.region).written;
}

void PageCache::drop(PageKind kind, std::uint32_t region) {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  leave_order(cache, kind, region);
  for (std::uint32_t i = 0; i < cache.table.region(region).pages; ++i) {
    const PageKey page{kind, region, i};
    if (forget(cache, page)) cache.epoch.removed.push_back(cache.table.id(page));
  }
  cache.turns.notify();
}

}  // namespace perennial
