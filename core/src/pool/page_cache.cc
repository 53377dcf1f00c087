// SPDX-License-Identifier: Apache-2.0
// The cache's shape: frames, regions, who is inside; and what it tells about its pages.
#include "pool/page_cache.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "pool/page_cache_link.h"

namespace perennial {

using storage::PageKind;
using storage::Status;

PageCache::PageCache(const PageSource& source, const storage::PageReader* store,
                     const PageCacheOptions& options)
    : source_(source), store_(store), options_(options), link_(std::make_shared<Link>()) {
  link_->cache = this;
  options_.readers = std::max(1U, options_.readers);
  if (options_.fillers == 0) options_.fillers = std::max(1U, std::thread::hardware_concurrency());
  for (Kind& kind : kinds_) kind.policy = make_policy(options_.policy);
}

PageCache::~PageCache() {
  {
    Lock lock(mutex_);
    stopping_ = true;
    ahead_.clear();
    notify(lock);
  }
  {
    const std::lock_guard lock(link_->mutex);
    link_->cache = nullptr;
  }
  if (readers_) readers_->join();
  if (fillers_) fillers_->join();
}

PageCache::Exclusive::Exclusive(PageCache& cache) : cache_(cache) {
  Lock lock(cache_.mutex_);
  cache_.ahead_.clear();
  while ((cache_.gate_.load() & kExclusive) != 0) cache_.wait(lock);
  cache_.gate_ |= kExclusive;
  ++cache_.waiting_;
  cache_.changed_something_.wait(
      lock, [&] { return cache_.active_.load() == 0 && cache_.background_ == 0; });
  --cache_.waiting_;
}

PageCache::Exclusive::~Exclusive() {
  Lock lock(cache_.mutex_);
  cache_.gate_ &= ~kExclusive;
  cache_.notify(lock);
}

// Waits until anything at all happens.
void PageCache::wait(Lock& lock) {
  const std::uint64_t seen = events_;
  ++waiting_;
  changed_something_.wait(lock, [&] { return events_ != seen; });
  --waiting_;
}

void PageCache::notify(Lock&) {
  ++events_;
  if (waiting_.load() > 0) changed_something_.notify_all();
}

void PageCache::wait_idle() {
  Lock lock(mutex_);
  while (background_ > 0) wait(lock);
}

std::span<std::byte> PageCache::bytes(const Kind& kind, std::uint32_t frame) const {
  return {reinterpret_cast<std::byte*>(kind.slab->frame(frame)), kind.bytes};
}

void PageCache::update(std::atomic<std::uint64_t>& word, std::uint64_t clear, std::uint64_t set) {
  std::uint64_t old = word.load(std::memory_order_relaxed);
  while (!word.compare_exchange_weak(old, (old & ~clear) | set, std::memory_order_acq_rel,
                                     std::memory_order_relaxed)) {
  }
}

void PageCache::set_state(std::atomic<std::uint64_t>& word, PageState state) {
  update(word, page_word::kState, page_word::of(state));
}

// The record of a page that is about to differ from the store's version.
PageCache::Changed& PageCache::changed(PageKey page) {
  const auto [found, added] = changed_.try_emplace(page.packed());
  if (added && page.kind == PageKind::weights && (word(page).load() & page_word::kStored) == 0) {
    ++regions_[page.region]->written;
  }
  return found->second;
}

void PageCache::set_dirty(Changed& changed, PageKind kind, bool dirty) {
  if (changed.dirty != dirty) dirty_[kind_index(kind)] += dirty ? 1 : std::uint64_t{0} - 1;
  changed.dirty = dirty;
}

// The page equals the store's version, or is gone.
void PageCache::forget(std::uint64_t page) {
  const auto found = changed_.find(page);
  set_dirty(found->second, PageKey::of(page).kind, false);
  free_slot(found->second.slot);
  changed_.erase(found);
}

void PageCache::free_slot(std::optional<Slot>& slot) {
  if (slot) spill_->free(*slot);
  slot.reset();
}

Status PageCache::set_frames(PageKind kind, std::size_t frame_bytes, std::uint32_t limit) {
  Lock lock(mutex_);
  Kind& k = kinds_[kind_index(kind)];
  const std::uint32_t used = k.slab == nullptr ? 0 : k.slab->frames();
  if (k.bytes == frame_bytes && used <= limit) {
    k.limit = limit;
    return {};
  }
  // Copies for a commit leave their frames, and then every page.
  while (!k.shadows.empty()) {
    const auto moved = spill_shadow(lock, k);
    if (!moved.ok()) return moved.status();
    if (!*moved) wait(lock);  // the commit is just taking them
  }
  for (std::uint32_t frame = 0; frame < used; ++frame) {
    const PageKey page = PageKey::of(k.page_of[frame]);
    while (page.region < regions_.size() && page.page < regions_[page.region]->pages) {
      const std::uint64_t w = word(page).load();
      if (page.kind != kind || !in_frame(page_word::state(w)) || page_word::frame(w) != frame)
        break;
      if (give_up_frame(page, frame)) {
        k.policy->remove(frame);
        break;
      }
      const Changed& c = changed_.at(page.packed());
      if (c.busy > 0) {
        wait(lock);
      } else if (Status status = spill(lock, page, frame); !status.ok()) {
        return status;
      }
    }
  }
  k = Kind{};
  k.policy = make_policy(options_.policy);
  k.bytes = frame_bytes;
  k.limit = limit;
  if (frame_bytes > 0) k.slab = std::make_unique<FrameSlab>(frame_bytes);
  return {};
}

std::uint32_t PageCache::add_region(std::uint32_t pages) {
  auto region = std::make_unique<Region>();
  region->pages = pages;
  for (std::size_t kind = 0; kind < 2; ++kind) {
    region->words[kind] = std::vector<std::atomic<std::uint64_t>>(pages);
    region->frames[kind].resize(pages, nullptr);
    region->touched[kind] = std::vector<std::atomic<std::uint64_t>>(pages);
    if (options_.policy == PolicyKind::lru) {
      region->last_use[kind] = std::vector<std::atomic<std::uint64_t>>(pages);
    }
  }
  const Lock lock(mutex_);
  regions_.push_back(std::move(region));
  return static_cast<std::uint32_t>(regions_.size() - 1);
}

void PageCache::widen_region(std::uint32_t index, std::uint32_t pages,
                             const std::function<std::uint32_t(std::uint32_t)>& moved) {
  const Lock lock(mutex_);
  Region& region = *regions_[index];
  for (const PageKind kind : kPageKinds) {
    const std::size_t k = kind_index(kind);
    std::vector<std::atomic<std::uint64_t>> words(pages), touched(pages),
        uses(region.last_use[k].empty() ? 0 : pages);
    std::vector<float*> frames(pages, nullptr);
    for (std::uint32_t page = 0; page < region.pages; ++page) {
      const std::uint32_t to = moved(page);
      const std::uint64_t w = region.words[k][page].load();
      words[to].store(w);
      frames[to] = region.frames[k][page];
      touched[to].store(region.touched[k][page].load());
      if (!uses.empty()) uses[to].store(region.last_use[k][page].load());
      if (in_frame(page_word::state(w))) {
        kinds_[k].page_of[page_word::frame(w)] = PageKey{kind, index, to}.packed();
      }
    }
    region.words[k] = std::move(words);
    region.frames[k] = std::move(frames);
    region.last_use[k] = std::move(uses);
    region.touched[k] = std::move(touched);
  }
  region.pages = pages;
  const auto renamed = [&](std::uint64_t packed) {
    PageKey page = PageKey::of(packed);
    if (page.region == index) page.page = moved(page.page);
    return page.packed();
  };
  // A payload function may be reading a page: its record keeps its address.
  std::unordered_map<std::uint64_t, Changed> changed;
  while (!changed_.empty()) {
    auto node = changed_.extract(changed_.begin());
    node.key() = renamed(node.key());
    changed.insert(std::move(node));
  }
  changed_ = std::move(changed);
  for (Entry& entry : entries_) {
    if (!entry.dropped) entry.page = renamed(entry.page);
  }
}

void PageCache::remove_last_region() {
  const auto last = static_cast<std::uint32_t>(regions_.size() - 1);
  for (const PageKind kind : kPageKinds) drop(kind, last);
  const Lock lock(mutex_);
  regions_.pop_back();
}

void PageCache::set_stored(PageKey page) {
  const Lock lock(mutex_);
  word(page).store(page_word::of(PageState::absent) | page_word::kStored);
  if (page.kind == PageKind::weights) ++regions_[page.region]->written;
}

void PageCache::drop(PageKind kind, std::uint32_t index) {
  Lock lock(mutex_);
  Region& region = *regions_[index];
  Kind& k = kinds_[kind_index(kind)];
  for (std::uint32_t i = 0; i < region.pages; ++i) {
    const PageKey page{kind, index, i};
    std::atomic<std::uint64_t>& w = word(page);
    auto found = changed_.find(page.packed());
    while (found != changed_.end() && found->second.busy > 0) wait(lock);
    const std::uint64_t old = w.load();
    bool stored = (old & page_word::kStored) != 0;
    std::uint32_t frame = in_frame(page_word::state(old)) ? page_word::frame(old) : kNoFrame;
    if (frame != kNoFrame) k.policy->remove(frame);
    const bool differed = found != changed_.end();
    if (differed) {
      Changed& c = found->second;
      if (c.entry != kNoEntry) {
        Entry& entry = entries_[c.entry];
        entry.dropped = true;
        stored = true;  // will be, if the commit in flight succeeds
        if (!entry.detached && entry.taking != Taking::taken) {
          entry.detached = true;
          std::swap(entry.slot, c.slot);
          if (!entry.slot) {
            entry.frame = std::exchange(frame, kNoFrame);
            k.shadows.push_back(c.entry);
          }
        }
      }
      forget(page.packed());
    }
    if (frame != kNoFrame) k.free.push_back(frame);
    if (stored) removed_.push_back(source_.id(page));
    if (kind == PageKind::weights && (differed || stored)) --region.written;
    region.frames[kind_index(kind)][i] = nullptr;
    touched(page).store(0);
    w.store(0);
  }
  notify(lock);
}

PageState PageCache::state(PageKey page) const {
  const Lock lock(mutex_);
  return page_word::state(word(page).load());
}

bool PageCache::written(PageKey page) const {
  const Lock lock(mutex_);
  return (word(page).load() & page_word::kStored) != 0 || changed_.contains(page.packed());
}

bool PageCache::any_written(std::uint32_t region) const {
  const Lock lock(mutex_);
  return regions_.at(region)->written.load() > 0;
}

float* const* PageCache::frames(PageKind kind, std::uint32_t region) const {
  const Lock lock(mutex_);
  return regions_.at(region)->frames[kind_index(kind)].data();
}

std::uint32_t PageCache::frame_limit(PageKind kind) const {
  const Lock lock(mutex_);
  return kinds_[kind_index(kind)].limit;
}

std::uint64_t PageCache::resident_bytes() const {
  std::uint64_t sum = 0;
  for (const Kind& kind : kinds_) {
    if (kind.slab != nullptr) sum += std::uint64_t{kind.slab->frames()} * kind.bytes;
  }
  return sum;
}

PagerCounters PageCache::counters() const {
  const Lock lock(mutex_);
  PagerCounters c;
  c.hits = count_.hits;
  c.initialised = count_.initialised;
  c.read = count_.read;
  c.read_bytes = count_.read_bytes;
  c.unspilled = count_.unspilled;
  c.prefetched = count_.prefetched;
  c.prefetch_hits = count_.prefetch_hits;
  c.evicted = count_.evicted;
  c.spilled = count_.spilled;
  c.copied_on_write = count_.copied;
  c.waits = count_.waits;
  c.wait_ns = count_.wait_ns;
  for (std::size_t kind = 0; kind < 2; ++kind) c.dirty_bytes += dirty_[kind] * kinds_[kind].bytes;
  c.resident_bytes = resident_bytes();
  c.peak_bytes = count_.peak;
  if (spill_ != nullptr) {
    c.spill_file_bytes = spill_->bytes_in_use();
    c.spill_peak_bytes = spill_->peak_bytes();
  }
  return c;
}

}  // namespace perennial
