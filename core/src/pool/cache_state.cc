// SPDX-License-Identifier: Apache-2.0
#include "pool/cache_state.h"

#include <algorithm>
#include <thread>

#include "pool/copy_on_write.h"

namespace perennial {

using storage::PageKind;

Workers::Workers(unsigned readers, unsigned fillers)
    : reader_count_(std::max(1U, readers)),
      filler_count_(fillers > 0 ? fillers : std::max(1U, std::thread::hardware_concurrency())) {}

boost::asio::thread_pool& Workers::readers() {
  std::call_once(readers_made_,
                 [this] { readers_ = std::make_unique<boost::asio::thread_pool>(reader_count_); });
  return *readers_;
}

boost::asio::thread_pool& Workers::fillers() {
  std::call_once(fillers_made_,
                 [this] { fillers_ = std::make_unique<boost::asio::thread_pool>(filler_count_); });
  return *fillers_;
}

void Workers::join() {
  if (readers_) readers_->join();
  if (fillers_) fillers_->join();
}

CacheState::CacheState(const storage::PageReader* from, std::uint64_t budget,
                       const PageCacheOptions& with)
    : store(from),
      options(with),
      frames(budget),
      budget_bytes(budget),
      evicts(budget > 0),
      link(std::make_shared<CacheLink>()),
      workers(with.readers, with.fillers) {}

std::span<std::byte> frame_bytes(CacheState& cache, PageKey page, std::uint32_t frame) {
  return cache.frames.bytes(cache.table.pages(page).size, frame);
}

ChangedPage& differs(CacheState& cache, PageKey page) {
  const auto [changed, added] = cache.changed.add(page.packed());
  if (added && page.kind == PageKind::weights &&
      (cache.table.word(page).load() & page_word::kStored) == 0) {
    ++cache.table.region(page.region).written;
  }
  return *changed;
}

void forget_change(CacheState& cache, PageKey page) {
  ChangedPage& changed = cache.changed.at(page.packed());
  cache.changed.set_dirty(changed, cache.table.pages(page).bytes, false);
  free_slot(cache, changed.slot);
  cache.changed.erase(page.packed());
}

void free_slot(CacheState& cache, std::optional<ChangedPage::Slot>& slot) {
  if (slot) cache.spill->free(*slot);
  slot.reset();
}

}  // namespace perennial
