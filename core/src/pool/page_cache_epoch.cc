// SPDX-License-Identifier: Apache-2.0
// Commits beside training: what an epoch writes is fixed when it begins.
#include <algorithm>
#include <utility>

#include "perennial/core/error.h"
#include "pool/cache_state.h"
#include "pool/copy_on_write.h"
#include "pool/page_cache.h"

namespace perennial {

using storage::MutexLock;
using storage::Result;
using storage::Status;
using storage::StatusCode;

namespace {

// An entry for every changed page.
std::vector<Epoch::Entry> list_changed(CacheState& cache) PERENNIAL_REQUIRES(cache.turns.mutex) {
  std::vector<Epoch::Entry> entries;
  entries.reserve(cache.changed.size());
  for (const auto& [packed, changed] : cache.changed) {
    const PageKey page = PageKey::of(packed);
    Epoch::Entry& entry = entries.emplace_back();
    entry.page = packed;
    entry.id = cache.table.id(page);
    entry.size = cache.table.pages(page).size;
  }
  std::sort(entries.begin(), entries.end(),
            [](const Epoch::Entry& a, const Epoch::Entry& b) { return a.id < b.id; });
  return entries;
}

Result<std::span<const std::byte>> payload_of(CacheLink& link, std::uint64_t epoch,
                                              std::uint32_t entry) {
  const std::lock_guard lock(link.mutex);
  if (link.cache == nullptr) {
    return Status(StatusCode::invalid_argument, "the pool of a commit in flight is gone");
  }
  return payload(*link.cache, epoch, entry, link.buffer);
}

// An entry whose page is there: it equals the store's version now, or is changed again.
void end_entry(CacheState& cache, const Epoch::Entry& entry, bool success)
    PERENNIAL_REQUIRES(cache.turns.mutex) {
  const PageKey page = PageKey::of(entry.page);
  PageTable::Pages& pages = cache.table.pages(page);
  std::atomic<std::uint64_t>& word = pages.words[page.page];
  ChangedPage& changed = cache.changed.at(entry.page);
  const PageState state = page_word::state(word.load());
  changed.entry = kNoEntry;
  if (!success) {
    pages.touched[page.page] |= entry.touched;
    cache.changed.set_dirty(changed, pages.bytes, true);
    if (in_frame(state)) set_state(word, PageState::dirty);
    return;
  }
  update_word(word, 0, page_word::kStored);
  if (changed.dirty) return;
  set_state(word, in_frame(state) ? PageState::resident : PageState::absent);
  forget_change(cache, page);
}

}  // namespace

void PageCache::begin_epoch(storage::CommitRequest& request) {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  Epoch& epoch = cache.epoch;
  if (epoch.in_flight) {
    throw Error("a commit is in flight: say committed() or commit_failed() before the next one");
  }
  cache.turns.exclude_writers();
  epoch.entries = list_changed(cache);
  epoch.in_flight = true;
  ++epoch.number;
  request.pages.reserve(request.pages.size() + epoch.entries.size());
  std::vector<std::uint32_t> of_size(cache.frames.sizes());
  for (std::uint32_t i = 0; i < epoch.entries.size(); ++i) {
    Epoch::Entry& entry = epoch.entries[i];
    const PageKey page = PageKey::of(entry.page);
    PageTable::Pages& pages = cache.table.pages(page);
    std::atomic<std::uint64_t>& word = pages.words[page.page];
    ChangedPage& changed = cache.changed.at(entry.page);
    entry.touched = pages.touched[page.page].exchange(0);
    cache.changed.set_dirty(changed, pages.bytes, false);
    changed.entry = i;
    const std::uint64_t w = word.load();
    if (in_frame(page_word::state(w))) set_state(word, PageState::writing);
    ++of_size[entry.size];
    // Bits are differences to a version that the store has.
    const std::uint64_t touched = (w & page_word::kStored) != 0 ? entry.touched : 0;
    request.pages.push_back(
        {entry.id, cache.table.shape(page),
         [link = cache.link, number = epoch.number, i]() { return payload_of(*link, number, i); },
         touched});
  }
  epoch.removing = std::exchange(epoch.removed, {});
  request.removed_pages.insert(request.removed_pages.end(), epoch.removing.begin(),
                               epoch.removing.end());
  prepare_shadows(cache, of_size);
  cache.turns.admit_writers();
}

void PageCache::end_epoch(bool success) {
  CacheState& cache = *state_;
  const MutexLock lock(cache.turns.mutex);
  Epoch& epoch = cache.epoch;
  if (!epoch.in_flight) return;
  for (Epoch::Entry& entry : epoch.entries) {
    while (entry.taking == Epoch::Taking::moving) cache.turns.wait();
    entry.taking = Epoch::Taking::taken;
    release_source(cache, entry);
    // Whoever reads the page's frame or slot just now is waited for.
    while (!entry.dropped && cache.changed.at(entry.page).busy > 0) cache.turns.wait();
    if (!entry.dropped) end_entry(cache, entry, success);
  }
  std::vector<storage::PageId>& removed = epoch.removed;
  if (!success) removed.insert(removed.end(), epoch.removing.begin(), epoch.removing.end());
  std::sort(removed.begin(), removed.end());
  removed.erase(std::unique(removed.begin(), removed.end()), removed.end());
  epoch.removing.clear();
  epoch.entries.clear();
  epoch.in_flight = false;
  cache.background.spill_failed = false;
  cache.turns.notify();
}

}  // namespace perennial
