// SPDX-License-Identifier: Apache-2.0
#include "pool/page_table.h"

#include <algorithm>
#include <utility>

namespace perennial {

using storage::PageKind;

std::uint32_t PageTable::add(const PageSource& source, std::uint32_t number, std::uint32_t pages) {
  auto region = std::make_unique<Region>();
  region->source = &source;
  region->number = number;
  region->pages = pages;
  for (Pages& kind : region->kinds) {
    kind.words = std::vector<std::atomic<std::uint64_t>>(pages);
    kind.frames.resize(pages, nullptr);
    kind.touched = std::vector<std::atomic<std::uint64_t>>(pages);
  }
  const auto free = std::find(regions_.begin(), regions_.end(), nullptr);
  const auto at = static_cast<std::uint32_t>(free - regions_.begin());
  if (free == regions_.end()) {
    regions_.push_back(std::move(region));
  } else {
    *free = std::move(region);
  }
  return at;
}

void PageTable::widen(std::uint32_t index, std::uint32_t pages,
                      const std::function<std::uint32_t(std::uint32_t)>& moved) {
  Region& region = *regions_[index];
  for (Pages& kind : region.kinds) {
    std::vector<std::atomic<std::uint64_t>> words(pages), touched(pages);
    std::vector<float*> frames(pages, nullptr);
    for (std::uint32_t page = 0; page < region.pages; ++page) {
      const std::uint32_t to = moved(page);
      words[to].store(kind.words[page].load());
      frames[to] = kind.frames[page];
      touched[to].store(kind.touched[page].load());
    }
    kind.words = std::move(words);
    kind.frames = std::move(frames);
    kind.touched = std::move(touched);
  }
  region.pages = pages;
}

storage::PageId PageTable::id(PageKey page) const {
  const Region& region = *regions_[page.region];
  return region.source->id({page.kind, region.number, page.page});
}

storage::PageShape PageTable::shape(PageKey page) const {
  return regions_[page.region]->source->shape(page.kind);
}

void PageTable::fill_initial(PageKey page, std::span<std::byte> bytes) const {
  const Region& region = *regions_[page.region];
  region.source->fill_initial({page.kind, region.number, page.page}, bytes);
}

}  // namespace perennial
