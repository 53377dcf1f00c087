// SPDX-License-Identifier: Apache-2.0
// Pinning and prefetching, and what the cache tells about its pages.
#include "pool/page_cache.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cstring>
#include <exception>

#include "pool/cache_state.h"
#include "pool/copy_on_write.h"
#include "pool/loading.h"
#include "pool/pinning.h"

namespace perennial {

using storage::MutexLock;
using storage::MutexUnlock;
using storage::PageKind;
using storage::Result;
using storage::Status;

PageCache::PageCache(const storage::PageReader* store, std::uint64_t budget_bytes,
                     const PageCacheOptions& options)
    : state_(std::make_unique<CacheState>(store, budget_bytes, options)) {
  state_->link->cache = state_.get();
}

PageCache::~PageCache() {
  CacheState& cache = *state_;
  {
    const MutexLock lock(cache.turns.mutex);
    cache.background.stopping = true;
    cache.background.ahead.clear();
    cache.turns.notify();
  }
  {
    const std::lock_guard lock(cache.link->mutex);
    cache.link->cache = nullptr;
  }
  cache.workers.join();
}

Result<std::size_t> PageCache::pin(const PinRequest& request, PinSet& set) {
  return Pinning(*state_, request, set).run();
}

void PageCache::prefetch(std::span<const std::uint64_t> pages) {
  CacheState& cache = *state_;
  // The caller may hold pins: it must not wait for those who wait for it.
  const Turns::Visit visit(cache.turns);
  if (cache.turns.closed()) return;
  std::vector<std::uint64_t> missing;
  for (const std::uint64_t packed : pages) {
    if (!missing.empty() && missing.back() == packed) continue;
    std::atomic<std::uint64_t>& word = cache.table.word(PageKey::of(packed));
    std::uint64_t old = word.load(std::memory_order_relaxed);
    while (in_frame(page_word::state(old)) && (old & page_word::kAhead) == 0 &&
           !word.compare_exchange_weak(old, old | page_word::kAhead)) {
    }
    if (!in_frame(page_word::state(old))) missing.push_back(packed);
  }
  const MutexLock lock(cache.turns.mutex);
  if (cache.background.stopping || cache.turns.closed()) return;
  std::deque<std::uint64_t>& ahead = cache.background.ahead;
  for (const std::uint64_t packed : missing) {
    // More than half of the budget would only push out what was fetched before.
    const std::size_t most = std::clamp<std::size_t>(
        cache.budget_bytes / 2 / cache.table.pages(PageKey::of(packed)).bytes, 1, 1 << 16);
    if (ahead.size() < most) ahead.push_back(packed);
  }
  const std::size_t jobs = std::min<std::size_t>(ahead.size(), cache.workers.count_readers());
  for (std::size_t i = cache.turns.jobs(); i < jobs; ++i) {
    cache.turns.begin_job();
    boost::asio::post(cache.workers.readers(), [&cache] { load_ahead(cache); });
  }
}

bool PageCache::epoch_in_flight() const {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  return cache.epoch.in_flight;
}

PageState PageCache::state(PageKey page) const {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  return cache.table.state(page);
}

bool PageCache::written(PageKey page) const {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  return (cache.table.word(page).load() & page_word::kStored) != 0 ||
         cache.changed.contains(page.packed());
}

bool PageCache::any_written(std::uint32_t region) const {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  return cache.table.region(region).written.load() > 0;
}

Status PageCache::copy(PageKey page, std::span<std::byte> to) {
  const Result<bool> changed = read_changed(page, [&](std::span<const std::byte> bytes) {
    std::memcpy(to.data(), bytes.data(), to.size());
  });
  if (!changed.ok()) return changed.status();
  if (*changed) return {};
  CacheState& cache = *state_;
  bool stored = false;
  storage::PageId id;
  const PageTable::Region* region = nullptr;
  {
    const MutexLock lock(cache.turns.mutex);
    stored = (cache.table.word(page).load() & page_word::kStored) != 0;
    id = cache.table.id(page);
    region = &cache.table.region(page.region);
  }
  if (stored) return cache.store->read_page(id, to);
  region->source->fill_initial({page.kind, region->number, page.page}, to);
  return {};
}

Result<bool> PageCache::read_changed(PageKey page,
                                     const std::function<void(std::span<const std::byte>)>& read) {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  ChangedPage* const changed = cache.changed.find(page.packed());
  if (changed == nullptr) return false;
  ++changed->busy;
  const std::uint64_t w = cache.table.word(page).load();
  std::span<const std::byte> content;
  if (in_frame(page_word::state(w))) content = frame_bytes(cache, page, page_word::frame(w));
  const std::optional<ChangedPage::Slot> slot = changed->slot;
  const storage::SpillFile* const spill = cache.spill.get();
  std::vector<std::byte> buffer(content.empty() ? cache.table.pages(page).bytes : 0);
  Status status;
  std::exception_ptr failure;
  {
    const MutexUnlock meanwhile(cache.turns.mutex);
    try {
      if (content.empty()) {
        status = spill->read(*slot, buffer);
        content = buffer;
      }
      if (status.ok()) read(content);
    } catch (...) {  // others wait for the page to be free again
      failure = std::current_exception();
    }
  }
  --changed->busy;
  cache.turns.notify();
  if (failure) std::rethrow_exception(failure);
  if (!status.ok()) return about(cache.table.id(page), status);
  return true;
}

float* const* PageCache::frames(PageKind kind, std::uint32_t region) const {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  return cache.table.region(region).kinds[kind_index(kind)].frames.data();
}

std::uint64_t PageCache::budget_bytes() const { return state_->budget_bytes; }

void PageCache::wait_idle() {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  while (cache.turns.jobs() > 0) cache.turns.wait();
}

PagerCounters PageCache::counters() const {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  PagerCounters c;
  c.hits = cache.count.hits;
  c.initialised = cache.count.initialised;
  c.read = cache.count.read;
  c.read_bytes = cache.count.read_bytes;
  c.unspilled = cache.count.unspilled;
  c.prefetched = cache.count.prefetched;
  c.prefetch_hits = cache.count.prefetch_hits;
  c.evicted = cache.count.evicted;
  c.spilled = cache.count.spilled;
  c.copied_on_write = cache.count.copied;
  c.waits = cache.turns.waits();
  c.wait_ns = cache.turns.wait_ns();
  c.dirty_bytes = cache.changed.dirty_bytes();
  c.resident_bytes = cache.frames.in_use();
  c.peak_bytes = cache.frames.peak();
  if (cache.spill != nullptr) {
    c.spill_file_bytes = cache.spill->bytes_in_use();
    c.spill_peak_bytes = cache.spill->peak_bytes();
  }
  return c;
}

}  // namespace perennial
