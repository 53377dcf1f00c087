// SPDX-License-Identifier: Apache-2.0
// A page cache over a store, as the pager has it, for benchmarks without torch.
#pragma once

#include <cstring>

#include "bench_store.h"
#include "pool/page_cache.h"

namespace perennial::bench {

// Region 0, weights only, numbered as page_id() does.
class CachedIds : public perennial::PageSource {
 public:
  explicit CachedIds(std::size_t page_bytes) : shape_(page_shape(page_bytes)) {}
  storage::PageId id(PageKey page) const override { return page_id(page.page); }
  storage::PageShape shape(storage::PageKind) const override { return shape_; }
  void fill_initial(PageKey page, std::span<std::byte> bytes) const override {
    std::memset(bytes.data(), static_cast<int>(page.page & 0xff), bytes.size());
  }

 private:
  storage::PageShape shape_;
};

inline std::uint64_t cached_page(std::size_t index) {
  return PageKey{storage::PageKind::weights, 0, static_cast<std::uint32_t>(index)}.packed();
}

// `pages` pages, never written yet, in at most `frames` frames.
struct CachedPages {
  CachedPages(std::size_t page_bytes, std::size_t pages, std::size_t frames,
              const storage::PageReader* store, const PageCacheOptions& options = {})
      : ids(page_bytes), cache(store, frames * page_bytes, options) {
    const PageCache::Exclusive alone(cache);
    cache.add_region(ids, 0, static_cast<std::uint32_t>(pages));
  }
  float* frame(std::size_t page) const { return cache.frames(storage::PageKind::weights, 0)[page]; }

  CachedIds ids;
  PageCache cache;
};

}  // namespace perennial::bench
