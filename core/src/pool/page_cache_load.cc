// SPDX-License-Identifier: Apache-2.0
// Filling frames: from the store, the spill file or the recipe; and ahead of their use.
#include <algorithm>
#include <boost/asio/post.hpp>

#include "pool/page_cache.h"

namespace perennial {

using storage::Result;
using storage::Status;

// Loads that any number of threads take from one after another.
struct PageCache::LoadBatch {
  explicit LoadBatch(std::vector<Load*> of) : loads(std::move(of)), left(loads.size()) {}

  void work(PageCache& cache) {
    for (std::size_t i = next++; i < loads.size(); i = next++) {
      loads[i]->status = cache.fill(*loads[i]);
      cache.finish_load(*loads[i], false);
      const std::lock_guard lock(mutex);
      if (--left == 0) done.notify_all();
    }
  }
  void wait() {
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return left == 0; });
  }

  std::vector<Load*> loads;
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::condition_variable done;
  std::size_t left;
};

boost::asio::thread_pool& PageCache::readers() {
  std::call_once(readers_made_, [this] {
    readers_ = std::make_unique<boost::asio::thread_pool>(options_.readers);
  });
  return *readers_;
}

boost::asio::thread_pool& PageCache::fillers() {
  std::call_once(fillers_made_, [this] {
    fillers_ = std::make_unique<boost::asio::thread_pool>(options_.fillers);
  });
  return *fillers_;
}

// The page is being filled from now on. The caller holds the mutex and owns the frame.
void PageCache::start_load(PageKey page, std::uint32_t frame, std::uint64_t pins, Load& load) {
  std::atomic<std::uint64_t>& w = word(page);
  const std::uint64_t old = w.load();
  Kind& kind = kinds_[kind_index(page.kind)];
  load.page = page.packed();
  load.frame = frame;
  load.from = page_word::state(old);
  load.bytes = bytes(kind, frame).data();
  load.slot.reset();
  if (load.from == PageState::spilled) {
    Changed& c = changed_.at(load.page);
    ++c.busy;
    load.slot = c.slot;
  }
  kind.page_of[frame] = load.page;
  w.store((old & page_word::kStored) | pins * page_word::kPin | page_word::of(PageState::loading) |
          frame);
}

// Reads without the mutex.
Status PageCache::fill(Load& load) const {
  const PageKey page = PageKey::of(load.page);
  const std::span<std::byte> bytes(load.bytes, kinds_[kind_index(page.kind)].bytes);
  switch (load.from) {
    case PageState::initial:
      source_.fill_initial(page, bytes);
      return {};
    case PageState::absent:
      return store_->read_page(source_.id(page), bytes);
    default: {
      const Status status = spill_->read(*load.slot, bytes);
      return status.ok() ? status : about(source_.id(page), status);
    }
  }
}

// Shows the page, or gives it back its former state. Prefetched pages are `ahead`, and not pinned.
void PageCache::finish_load(Load& load, bool ahead) {
  const PageKey page = PageKey::of(load.page);
  Lock lock(mutex_);
  std::atomic<std::uint64_t>& w = word(page);
  Kind& kind = kinds_[kind_index(page.kind)];
  Changed* changed = nullptr;
  if (load.slot) {
    changed = &changed_.at(load.page);
    --changed->busy;
  }
  if (!load.status.ok()) {
    w.store((w.load() & page_word::kStored) | page_word::of(load.from));
    kind.free.push_back(load.frame);
    notify(lock);
    return;
  }
  ++(load.from == PageState::initial  ? count_.initialised
     : load.from == PageState::absent ? count_.read
                                      : count_.unspilled);
  if (load.from == PageState::absent) count_.read_bytes += kind.bytes;
  if (ahead) ++count_.prefetched;
  Region& region = *regions_[page.region];
  region.frames[kind_index(page.kind)][page.page] = reinterpret_cast<float*>(load.bytes);
  auto& uses = region.last_use[kind_index(page.kind)];
  if (!uses.empty()) uses[page.page].store(++now_, std::memory_order_relaxed);
  const PageState state = changed == nullptr ? PageState::resident
                          : changed->dirty   ? PageState::dirty
                                             : PageState::writing;
  update(w, page_word::kState,
         page_word::of(state) | (ahead ? page_word::kAhead | page_word::kPrefetched : 0));
  kind.policy->insert(load.frame, load.page);
  notify(lock);
}

// Fills frames with many threads, this one among them, and waits for all.
void PageCache::run(std::vector<Load>& loads) {
  std::vector<Load*> computed, read;
  for (Load& load : loads) (load.from == PageState::initial ? computed : read).push_back(&load);
  const auto start = [this](std::vector<Load*> list, std::size_t threads, auto&& pool) {
    auto batch = std::make_shared<LoadBatch>(std::move(list));
    // The caller takes part: one load needs no other thread.
    const std::size_t helpers = std::min(threads, batch->loads.size()) - !batch->loads.empty();
    for (std::size_t i = 0; i < helpers; ++i) {
      boost::asio::post(pool(), [this, batch] { batch->work(*this); });
    }
    return batch;
  };
  const auto reading = start(
      std::move(read), options_.readers, [this]() -> auto& { return readers(); });
  const auto computing = start(
      std::move(computed), options_.fillers, [this]() -> auto& { return fillers(); });
  computing->work(*this);
  reading->work(*this);
  computing->wait();
  reading->wait();
}

void PageCache::prefetch(std::span<const std::uint64_t> pages) {
  // The caller may hold pins: it must not wait for those who wait for it.
  ++active_;
  std::vector<std::uint64_t> missing;
  if (gate_.load() == 0) {
    for (const std::uint64_t packed : pages) {
      if (!missing.empty() && missing.back() == packed) continue;
      std::atomic<std::uint64_t>& w = word(PageKey::of(packed));
      std::uint64_t old = w.load(std::memory_order_relaxed);
      while (in_frame(page_word::state(old)) && (old & page_word::kAhead) == 0 &&
             !w.compare_exchange_weak(old, old | page_word::kAhead)) {
      }
      if (!in_frame(page_word::state(old))) missing.push_back(packed);
    }
  }
  {
    // More would only push out what was fetched before.
    Lock lock(mutex_);
    const std::size_t most = std::max<std::size_t>(
        1, std::min<std::size_t>(std::max(kinds_[0].limit, kinds_[1].limit) / 2, 1 << 16));
    if (stopping_ || gate_.load() != 0) missing.clear();
    for (const std::uint64_t packed : missing) {
      if (ahead_.size() < most) ahead_.push_back(packed);
    }
    const std::size_t jobs = std::min<std::size_t>(ahead_.size(), options_.readers);
    for (std::size_t i = background_; i < jobs; ++i) {
      ++background_;
      boost::asio::post(readers(), [this] { prefetch_next(); });
    }
  }
  --active_;
  if (gate_.load() != 0) {
    Lock lock(mutex_);
    notify(lock);
  }
}

void PageCache::prefetch_next() {
  Lock lock(mutex_);
  while (!ahead_.empty() && !stopping_ && gate_.load() == 0) {
    const PageKey page = PageKey::of(ahead_.front());
    ahead_.pop_front();
    const auto wanted = [&] {
      const PageState state = page_word::state(word(page).load());
      return state == PageState::initial || state == PageState::absent ||
             state == PageState::spilled;
    };
    if (!wanted()) continue;
    const std::size_t kind = kind_index(page.kind);
    const Result<std::uint32_t> frame = acquire(lock, kind, Want::prefetch);
    if (!frame.ok() || *frame == kNoFrame) {
      ahead_.clear();
      break;
    }
    if (!wanted()) {
      kinds_[kind].free.push_back(*frame);
      continue;
    }
    Load load;
    start_load(page, *frame, 0, load);
    lock.unlock();
    load.status = fill(load);
    finish_load(load, true);
    lock.lock();
  }
  --background_;
  notify(lock);
}

}  // namespace perennial
