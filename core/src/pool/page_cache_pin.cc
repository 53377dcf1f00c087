// SPDX-License-Identifier: Apache-2.0
// Pinning: hits by one atomic word, misses in the order of the groups, turns for those who find no
// frame.
#include <algorithm>
#include <string>

#include "perennial/core/error.h"
#include "pool/page_cache.h"

namespace perennial {

using storage::Result;
using storage::Status;
using storage::StatusCode;

namespace {

std::uint64_t nanoseconds_since(std::chrono::steady_clock::time_point start) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start)
          .count());
}

std::size_t place(std::uint64_t page, std::size_t mask) {
  return static_cast<std::size_t>((page * 0x9e3779b97f4a7c15ULL) >> 32) & mask;
}

constexpr std::size_t kSmallestTable = 64;

}  // namespace

std::size_t PinSet::find_or_add(std::uint64_t page, std::size_t group, bool& added) {
  if (2 * (items_.size() + 1) > table_.size()) rehash();
  const std::size_t mask = table_.size() - 1;
  std::size_t at = place(page, mask);
  for (; table_[at].item != 0; at = (at + 1) & mask) {
    if (table_[at].page == page) {
      added = false;
      return table_[at].item - 1;
    }
  }
  items_.push_back({page, 0, group, static_cast<std::uint32_t>(at), false});
  table_[at] = {page, static_cast<std::uint32_t>(items_.size())};
  added = true;
  return items_.size() - 1;
}

void PinSet::rehash() {
  table_.assign(std::max(kSmallestTable, 2 * table_.size()), {});
  const std::size_t mask = table_.size() - 1;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    std::size_t at = place(items_[i].page, mask);
    while (table_[at].item != 0) at = (at + 1) & mask;
    table_[at] = {items_[i].page, static_cast<std::uint32_t>(i + 1)};
    items_[i].place = static_cast<std::uint32_t>(at);
  }
}

void PinSet::release() {
  if (cache_ == nullptr) return;
  cache_->unpin(*this, 0);
  cache_->leave(*this);
  cache_ = nullptr;
}

// Goes in, or waits for the end of what must be alone. `waited`: it is this caller's turn.
void PageCache::enter(bool writes, bool waited) {
  const std::uint32_t stop =
      kExclusive | (waited ? 0 : kStarving) | (writes ? kEpoch : std::uint32_t{0});
  for (;;) {
    ++active_;
    if (writes) ++writing_;
    if ((gate_.load() & stop) == 0) return;
    if (writes) --writing_;
    --active_;
    Lock lock(mutex_);
    notify(lock);
    if ((gate_.load() & stop) == 0) continue;
    const auto start = std::chrono::steady_clock::now();
    ++count_.waits;
    while ((gate_.load() & stop) != 0) wait(lock);
    count_.wait_ns += nanoseconds_since(start);
  }
}

void PageCache::leave(PinSet& set) {
  if (set.writes_) --writing_;
  --active_;
  if (gate_.load() != 0 || waiting_.load() > 0) {
    Lock lock(mutex_);
    notify(lock);
  }
}

// Pins a page that is in a frame; without the mutex.
bool PageCache::hit(PageKey page, PinUse use, std::uint64_t now, std::uint64_t& prefetch_hits) {
  using namespace page_word;
  Region& region = *regions_[page.region];
  std::atomic<std::uint64_t>& word = region.words[kind_index(page.kind)][page.page];
  std::uint64_t old = word.load(std::memory_order_relaxed), taken = 0;
  do {
    if (!in_frame(page_word::state(old))) return false;
    taken = (old + kPin) & ~(kAhead | kPrefetched);
    if (use == PinUse::read && (old & kFrequency) != kFrequency) {
      taken += std::uint64_t{1} << kFrequencyShift;
    }
  } while (!word.compare_exchange_weak(old, taken, std::memory_order_acq_rel,
                                       std::memory_order_relaxed));
  if ((old & kPrefetched) != 0) ++prefetch_hits;
  auto& uses = region.last_use[kind_index(page.kind)];
  if (!uses.empty()) uses[page.page].store(now, std::memory_order_relaxed);
  return true;
}

// Takes the pins of items [from, ...) back and forgets the items. The last come first, so no search
// of an item that stays ever went past the place of one that goes.
void PageCache::unpin(PinSet& set, std::size_t from) {
  for (std::size_t i = from; i < set.items_.size(); ++i) {
    const PinSet::Item& item = set.items_[i];
    if (item.pinned) word(PageKey::of(item.page)).fetch_sub(page_word::kPin);
    set.table_[item.place].item = 0;
  }
  set.items_.resize(std::min(from, set.items_.size()));
}

Result<std::size_t> PageCache::pin(std::span<const std::uint64_t> pages, std::size_t group,
                                   PinUse use, PinSet& set, std::span<const std::uint64_t> experts,
                                   std::uint32_t most) {
  set.release();
  if (pages.empty()) return std::size_t{0};
  set.writes_ = use == PinUse::write;
  Result<std::size_t> pinned = std::size_t{0};
  enter(set.writes_, false);
  set.cache_ = this;
  if (evicts_nothing() &&
      (set.writes_ ? write_dirty(pages, group, experts) : all_in_frames(pages))) {
    return pages.size() / group;
  }
  pinned = attempt(pages, group, use, set, experts, false, most);
  if (pinned.ok() && *pinned == 0) {
    // Others hold what is needed. Let go, and take turns: nobody new comes in until this is served,
    // and those inside leave without waiting for a frame.
    set.release();
    const auto start = std::chrono::steady_clock::now();
    ++count_.waits;
    const std::lock_guard turn(turn_);
    gate_ |= kStarving;
    ++waiting_;
    while (pinned.ok() && *pinned == 0) {
      std::uint64_t seen = 0;
      {
        const Lock lock(mutex_);
        seen = events_;
      }
      enter(set.writes_, true);
      set.cache_ = this;
      pinned = attempt(pages, group, use, set, experts, true, most);
      if (!pinned.ok() || *pinned > 0) break;
      // Letting go is an event of this caller's own; any other one after `seen` counts.
      unpin(set, 0);
      if (set.writes_) --writing_;
      --active_;
      set.cache_ = nullptr;
      Lock lock(mutex_);
      if (gate_.load() != kStarving) {
        notify(lock);
        ++seen;
      }
      changed_something_.wait(lock, [&] { return events_ != seen; });
    }
    --waiting_;
    Lock lock(mutex_);
    gate_ &= ~kStarving;
    notify(lock);
    lock.unlock();
    count_.wait_ns += nanoseconds_since(start);
  }
  if (pinned.ok() && use == PinUse::write) {
    if (Status status = mark_written(set); !status.ok()) pinned = status;
  }
  if (!pinned.ok()) set.release();
  return pinned;
}

// One try: how many groups are pinned now; 0 = none fits beside what others hold.
Result<std::size_t> PageCache::attempt(std::span<const std::uint64_t> pages, std::size_t group,
                                       PinUse use, PinSet& set,
                                       std::span<const std::uint64_t> experts, bool waited,
                                       std::uint32_t most) {
  std::size_t groups = pages.size() / group;
  std::vector<std::size_t> missing;
  std::array<std::uint32_t, 2> unique{};
  const std::array<std::uint32_t, 2> limits{kinds_[0].limit, kinds_[1].limit};
  const std::uint64_t now = ++now_;
  std::uint64_t hits = 0, prefetch_hits = 0, last = ~pages[0];
  for (std::size_t i = 0; i < groups * group; ++i) {
    if (pages[i] == last && experts.empty()) continue;
    last = pages[i];
    bool added = false;
    const std::size_t item = set.find_or_add(pages[i], i / group, added);
    if (!experts.empty()) set.items_[item].touched |= experts[i / group];
    if (!added) continue;
    const PageKey page = PageKey::of(pages[i]);
    const std::uint32_t count = ++unique[kind_index(page.kind)];
    if (count > limits[kind_index(page.kind)] || (count > most && i >= group)) {
      groups = i / group;
      break;
    }
    set.items_[item].pinned = hit(page, use, now, prefetch_hits);
    if (set.items_[item].pinned) {
      ++hits;
    } else {
      missing.push_back(item);
    }
  }
  count_.hits += hits;
  if (prefetch_hits > 0) count_.prefetch_hits += prefetch_hits;
  // Lets go of the groups that are given up.
  const auto cut = [&] {
    std::size_t keep = set.items_.size();
    while (keep > 0 && set.items_[keep - 1].group >= groups) --keep;
    if (keep == set.items_.size()) return;
    unpin(set, keep);
    if (!waited && waiting_.load() > 0) {  // not to wake itself
      Lock lock(mutex_);
      notify(lock);
    }
  };
  if (groups == 0) {
    return Status(StatusCode::invalid_argument,
                  "a group of " + std::to_string(group) + " pages does not fit " +
                      std::to_string(limits[0]) + " frames of weights and " +
                      std::to_string(limits[1]) + " of state");
  }
  cut();
  while (!missing.empty()) {
    std::vector<Load> loads;
    std::vector<std::size_t> others;
    Status failed;
    {
      Lock lock(mutex_);
      for (const std::size_t item : missing) {
        if (item >= set.items_.size() || set.items_[item].group >= groups) break;
        const Result<bool> begun = begin_load(lock, set, item, groups, loads);
        if (!begun.ok()) {
          failed = begun.status();
          break;
        }
        if (!*begun) others.push_back(item);
      }
    }
    run(loads);
    for (const Load& load : loads) {
      if (load.status.ok()) continue;
      set.items_[load.item].pinned = false;
      if (failed.ok()) failed = load.status;
    }
    if (!failed.ok()) return failed;
    cut();
    std::erase_if(others, [&](std::size_t item) { return item >= set.items_.size(); });
    missing = std::move(others);
    if (missing.empty()) break;
    Lock lock(mutex_);
    const auto loading = [&](std::size_t item) {
      return page_word::state(word(PageKey::of(set.items_[item].page)).load()) ==
             PageState::loading;
    };
    while (std::all_of(missing.begin(), missing.end(), loading)) wait(lock);
  }
  return groups;
}

// Pins a missing item: by now it is there, or a frame is found and its loading starts. False:
// somebody else loads it. Without a frame, later groups are given up, and at last its own: then
// `groups` ends before it and the answer is true.
Result<bool> PageCache::begin_load(Lock& lock, PinSet& set, std::size_t item, std::size_t& groups,
                                   std::vector<Load>& loads) {
  const PageKey page = PageKey::of(set.items_[item].page);
  for (;;) {
    const PageState state = page_word::state(word(page).load());
    if (state == PageState::loading) return false;
    if (in_frame(state)) {
      std::uint64_t prefetched = 0;
      set.items_[item].pinned = hit(page, PinUse::again, now_.load(), prefetched);
      count_.prefetch_hits += prefetched;
      return true;
    }
    const Result<std::uint32_t> frame = acquire(lock, kind_index(page.kind), Want::demand);
    if (!frame.ok()) return frame.status();
    if (*frame != kNoFrame) {
      const PageState now = page_word::state(word(page).load());
      if (now == PageState::loading || in_frame(now)) {  // while the mutex was free
        kinds_[kind_index(page.kind)].free.push_back(*frame);
        continue;
      }
      loads.emplace_back();
      loads.back().item = item;
      start_load(page, *frame, 1, loads.back());
      set.items_[item].pinned = true;
      return true;
    }
    const std::size_t own = set.items_[item].group;
    if (groups == own + 1) {
      groups = own;
      return true;
    }
    // Half of the later groups let go of what they hold; none of them is being loaded yet.
    groups = own + 1 + (groups - own - 1) / 2;
    for (std::size_t i = set.items_.size(); i-- > 0 && set.items_[i].group >= groups;) {
      if (!set.items_[i].pinned) continue;
      word(PageKey::of(set.items_[i].page)).fetch_sub(page_word::kPin);
      set.items_[i].pinned = false;
    }
  }
}

// In a cache that evicts nothing, pages that are in frames stay there without pins: whoever wants
// to be alone waits for those inside, and whoever wants to begin an epoch for writers among them.
bool PageCache::evicts_nothing() const {
  return std::all_of(kinds_.begin(), kinds_.end(),
                     [](const Kind& kind) { return kind.bytes == 0 || kind.limit == kUnlimited; });
}

bool PageCache::all_in_frames(std::span<const std::uint64_t> pages) const {
  return std::all_of(pages.begin(), pages.end(), [this](std::uint64_t page) {
    return in_frame(page_word::state(word(PageKey::of(page)).load(std::memory_order_acquire)));
  });
}

// The short way of pages that are about to change: those that are dirty already. True when all of
// them are; `touched` is the union of writes that happen in any case.
bool PageCache::write_dirty(std::span<const std::uint64_t> pages, std::size_t group,
                            std::span<const std::uint64_t> experts) {
  {
    const Lock lock(mutex_);
    if (in_epoch_) return false;
  }
  for (std::size_t i = 0; i < pages.size(); ++i) {
    const PageKey page = PageKey::of(pages[i]);
    if (page_word::state(word(page).load(std::memory_order_acquire)) != PageState::dirty) {
      return false;
    }
    if (!experts.empty()) touched(page).fetch_or(experts[i / group], std::memory_order_relaxed);
  }
  return true;
}

// Every pinned page is about to change.
Status PageCache::mark_written(PinSet& set) {
  Lock lock(mutex_);
  for (const PinSet::Item& item : set.items_) {
    const PageKey page = PageKey::of(item.page);
    for (;;) {
      Changed& c = changed(page);
      if (c.busy > 0) {
        const auto start = std::chrono::steady_clock::now();
        ++count_.waits;
        wait(lock);
        count_.wait_ns += nanoseconds_since(start);
        continue;
      }
      if (c.entry != kNoEntry) {
        const Result<bool> detached = detach(lock, c, page);
        if (!detached.ok()) return detached.status();
        if (!*detached) continue;  // the mutex was free: look again
      }
      free_slot(c.slot);
      set_dirty(c, page.kind, true);
      touched(page) |= item.touched;
      set_state(word(page), PageState::dirty);
      break;
    }
  }
  return {};
}

}  // namespace perennial
