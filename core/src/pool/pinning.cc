// SPDX-License-Identifier: Apache-2.0
#include "pool/pinning.h"

#include <algorithm>
#include <limits>
#include <string>

#include "pool/copy_on_write.h"
#include "pool/eviction.h"

namespace perennial {

using storage::MutexLock;
using storage::Result;
using storage::Status;
using storage::StatusCode;

Result<std::size_t> Pinning::run() {
  set_.release();
  if (request_.pages.empty()) return std::size_t{0};
  set_.writes_ = writes_;
  cache_.turns.enter(writes_, false);
  set_.cache_ = &cache_;
  // Where nothing is evicted, pages that are in frames stay there without pins: whoever wants to be
  // alone waits for those inside, and whoever wants to begin an epoch for writers among them.
  if (!cache_.evicts && (writes_ ? write_dirty() : all_in_frames())) {
    return request_.pages.size() / request_.group;
  }
  Result<std::size_t> pinned = attempt(false);
  if (pinned.ok() && *pinned == 0) pinned = take_turns();
  if (pinned.ok() && writes_) {
    if (Status status = mark_written(); !status.ok()) pinned = status;
  }
  if (!pinned.ok()) set_.release();
  return pinned;
}

bool Pinning::all_in_frames() const {
  return std::all_of(request_.pages.begin(), request_.pages.end(), [this](std::uint64_t page) {
    const std::uint64_t w = cache_.table.word(PageKey::of(page)).load(std::memory_order_acquire);
    return in_frame(page_word::state(w));
  });
}

// The short way of pages that are about to change: those that are dirty already. True when all of
// them are; the bits of experts are a union of writes that happen in any case.
bool Pinning::write_dirty() {
  {
    const MutexLock lock(cache_.turns.mutex);
    if (cache_.epoch.in_flight) return false;
  }
  for (std::size_t i = 0; i < request_.pages.size(); ++i) {
    const PageKey key = PageKey::of(request_.pages[i]);
    PageTable::Pages& pages = cache_.table.pages(key);
    const std::uint64_t w = pages.words[key.page].load(std::memory_order_acquire);
    if (page_word::state(w) != PageState::dirty) return false;
    if (!request_.experts.empty()) {
      pages.touched[key.page].fetch_or(request_.experts[i / request_.group],
                                       std::memory_order_relaxed);
    }
  }
  return true;
}

// Others hold what is needed: lets go, and tries again whenever something has happened.
Result<std::size_t> Pinning::take_turns() {
  set_.release();
  Turns::Turn turn(cache_.turns);
  for (;;) {
    turn.enter(writes_);
    set_.cache_ = &cache_;
    const Result<std::size_t> pinned = attempt(true);
    if (!pinned.ok() || *pinned > 0) return pinned;
    set_.unpin(0);
    set_.cache_ = nullptr;
    turn.retreat(writes_);
  }
}

// One try: how many groups are pinned now; 0 = none fits beside what others hold.
Result<std::size_t> Pinning::attempt(bool own_turn) {
  groups_ = request_.pages.size() / request_.group;
  std::vector<std::size_t> missing;
  if (!pin_hits(missing)) {
    return Status(StatusCode::invalid_argument, "a group of " + std::to_string(request_.group) +
                                                    " pages does not fit the memory budget of " +
                                                    std::to_string(cache_.budget_bytes) + " bytes");
  }
  cut(own_turn);
  while (!missing.empty()) {
    Result<std::vector<std::size_t>> others = load(missing);
    if (!others.ok()) return others.status();
    cut(own_turn);
    missing = std::move(others).value();
    std::erase_if(missing, [&](std::size_t item) { return item >= set_.items_.size(); });
    if (missing.empty()) break;
    const MutexLock lock(cache_.turns.mutex);
    const auto loading = [&](std::size_t item) {
      return cache_.table.state(PageKey::of(set_.items_[item].page)) == PageState::loading;
    };
    while (std::all_of(missing.begin(), missing.end(), loading)) cache_.turns.wait();
  }
  return groups_;
}

// Pins what is in frames, without the mutex, and lists the rest. False: not even the first group
// fits the budget.
bool Pinning::pin_hits(std::vector<std::size_t>& missing) {
  const std::uint64_t budget =
      cache_.evicts ? cache_.budget_bytes : std::numeric_limits<std::uint64_t>::max();
  const std::size_t group = request_.group;
  const std::span<const std::uint64_t> pages = request_.pages, experts = request_.experts;
  std::array<std::uint32_t, 2> unique{};
  std::uint64_t bytes = 0, hits = 0, prefetch_hits = 0, last = ~pages[0];
  for (std::size_t i = 0; i < groups_ * group; ++i) {
    if (pages[i] == last && experts.empty()) continue;
    last = pages[i];
    bool added = false;
    const std::size_t item = set_.find_or_add(pages[i], i / group, added);
    if (!experts.empty()) set_.items_[item].touched |= experts[i / group];
    if (!added) continue;
    const PageKey page = PageKey::of(pages[i]);
    bytes += cache_.table.pages(page).bytes;
    if (bytes > budget || (++unique[kind_index(page.kind)] > request_.most && i >= group)) {
      groups_ = i / group;
      break;
    }
    set_.items_[item].pinned = hit(page, request_.use, prefetch_hits);
    if (set_.items_[item].pinned) {
      ++hits;
    } else {
      missing.push_back(item);
    }
  }
  cache_.count.hits += hits;
  if (prefetch_hits > 0) cache_.count.prefetch_hits += prefetch_hits;
  return groups_ > 0;
}

// Pins a page that is in a frame.
bool Pinning::hit(PageKey page, PinUse use, std::uint64_t& prefetch_hits) {
  using namespace page_word;
  std::atomic<std::uint64_t>& word = cache_.table.word(page);
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
  return true;
}

// Lets go of the groups that are given up.
void Pinning::cut(bool own_turn) {
  std::size_t keep = set_.items_.size();
  while (keep > 0 && set_.items_[keep - 1].group >= groups_) --keep;
  if (keep == set_.items_.size()) return;
  set_.unpin(keep);
  if (!own_turn && cache_.turns.somebody_waits()) {  // not to wake itself
    const MutexLock lock(cache_.turns.mutex);
    cache_.turns.notify();
  }
}

// Loads missing items and waits for it; returns those that others load.
Result<std::vector<std::size_t>> Pinning::load(const std::vector<std::size_t>& missing) {
  std::vector<Load> loads;
  std::vector<std::size_t> others;
  Status failed;
  {
    const MutexLock lock(cache_.turns.mutex);
    for (const std::size_t item : missing) {
      if (item >= set_.items_.size() || set_.items_[item].group >= groups_) break;
      const Result<bool> begun = begin_load(item, loads);
      if (!begun.ok()) {
        failed = begun.status();
        break;
      }
      if (!*begun) others.push_back(item);
    }
  }
  run_loads(cache_, loads);
  for (const Load& load : loads) {
    if (load.status.ok()) continue;
    set_.items_[load.item].pinned = false;
    if (failed.ok()) failed = load.status;
  }
  if (!failed.ok()) return failed;
  return others;
}

// Pins a missing item: by now it is there, or a frame is found and its loading starts. False:
// somebody else loads it. Without a frame, later groups are given up, and at last its own: then
// `groups_` ends before it and the answer is true.
Result<bool> Pinning::begin_load(std::size_t item, std::vector<Load>& loads) {
  const PageKey page = PageKey::of(set_.items_[item].page);
  const std::uint32_t size = cache_.table.pages(page).size;
  for (;;) {
    const PageState state = cache_.table.state(page);
    if (state == PageState::loading) return false;
    if (in_frame(state)) {
      std::uint64_t prefetched = 0;
      set_.items_[item].pinned = hit(page, PinUse::again, prefetched);
      cache_.count.prefetch_hits += prefetched;
      return true;
    }
    const Result<std::uint32_t> frame = acquire(cache_, size, Want::demand);
    if (!frame.ok()) return frame.status();
    if (*frame != kNoFrame) {
      if (!in_no_frame(cache_.table.state(page))) {  // since the mutex was free
        cache_.frames.put_back(size, *frame);
        continue;
      }
      loads.emplace_back();
      loads.back().item = item;
      start_load(cache_, page, *frame, 1, loads.back());
      set_.items_[item].pinned = true;
      return true;
    }
    const std::size_t own = set_.items_[item].group;
    if (groups_ == own + 1) {
      groups_ = own;
      return true;
    }
    give_up_later_groups(own);
  }
}

// Half of the later groups let go of what they hold; none of them is being loaded yet.
void Pinning::give_up_later_groups(std::size_t than) {
  groups_ = than + 1 + (groups_ - than - 1) / 2;
  for (std::size_t i = set_.items_.size(); i-- > 0 && set_.items_[i].group >= groups_;) {
    if (!set_.items_[i].pinned) continue;
    cache_.table.word(PageKey::of(set_.items_[i].page)).fetch_sub(page_word::kPin);
    set_.items_[i].pinned = false;
  }
}

// Every pinned page is about to change.
Status Pinning::mark_written() {
  const MutexLock lock(cache_.turns.mutex);
  for (const PinSet::Item& item : set_.items_) {
    const PageKey page = PageKey::of(item.page);
    PageTable::Pages& pages = cache_.table.pages(page);
    for (;;) {
      ChangedPage& changed = differs(cache_, page);
      if (changed.busy > 0) {
        const Turns::Clock::time_point start = Turns::Clock::now();
        cache_.turns.wait();
        cache_.turns.count_wait(start);
        continue;
      }
      if (changed.entry != kNoEntry) {
        const Result<bool> detached = detach(cache_, changed, page);
        if (!detached.ok()) return detached.status();
        if (!*detached) continue;
      }
      free_slot(cache_, changed.slot);
      cache_.changed.set_dirty(changed, pages.bytes, true);
      pages.touched[page.page] |= item.touched;
      set_state(pages.words[page.page], PageState::dirty);
      break;
    }
  }
  return {};
}

}  // namespace perennial
