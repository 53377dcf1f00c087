// SPDX-License-Identifier: Apache-2.0
#include "pool/loading.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <condition_variable>
#include <utility>

#include "pool/eviction.h"

namespace perennial {

using storage::MutexLock;
using storage::MutexUnlock;
using storage::Result;
using storage::Status;

namespace {

// Reads without the mutex.
Status fill(const CacheState& cache, const Load& load) {
  switch (load.from) {
    case PageState::initial:
      cache.table.fill_initial(load.page, load.bytes);
      return {};
    case PageState::absent:
      return cache.store->read_page(cache.table.id(load.page), load.bytes);
    default: {
      const Status status = load.spill->read(*load.slot, load.bytes);
      return status.ok() ? status : about(cache.table.id(load.page), status);
    }
  }
}

// Shows the page, or gives it back its former state. Prefetched pages are `ahead`, and not pinned.
void finish_load(CacheState& cache, const Load& load, bool ahead)
    PERENNIAL_REQUIRES(cache.turns.mutex) {
  PageTable::Pages& pages = cache.table.pages(load.page);
  std::atomic<std::uint64_t>& word = pages.words[load.page.page];
  ChangedPage* changed = nullptr;
  if (load.slot) {
    changed = &cache.changed.at(load.page.packed());
    --changed->busy;
  }
  if (!load.status.ok()) {
    word.store((word.load() & page_word::kStored) | page_word::of(load.from));
    cache.frames.put_back(pages.size, load.frame);
    cache.turns.notify();
    return;
  }
  ++(load.from == PageState::initial  ? cache.count.initialised
     : load.from == PageState::absent ? cache.count.read
                                      : cache.count.unspilled);
  if (load.from == PageState::absent) cache.count.read_bytes += load.bytes.size();
  if (ahead) ++cache.count.prefetched;
  pages.frames[load.page.page] = reinterpret_cast<float*>(load.bytes.data());
  const PageState state = changed == nullptr ? PageState::resident
                          : changed->dirty   ? PageState::dirty
                                             : PageState::writing;
  update_word(word, page_word::kState,
              page_word::of(state) | (ahead ? page_word::kAhead | page_word::kPrefetched : 0));
  cache.frames.insert(pages.size, load.frame, load.page.packed());
  cache.turns.notify();
}

// Loads that any number of threads take from one after another.
class LoadBatch {
 public:
  explicit LoadBatch(std::vector<Load*> loads) : loads_(std::move(loads)), left_(loads_.size()) {}

  std::size_t size() const { return loads_.size(); }
  void work(CacheState& cache) {
    for (std::size_t i = next_++; i < loads_.size(); i = next_++) {
      loads_[i]->status = fill(cache, *loads_[i]);
      {
        const MutexLock lock(cache.turns.mutex);
        finish_load(cache, *loads_[i], false);
      }
      const MutexLock lock(mutex_);
      if (--left_ == 0) done_.notify_all();
    }
  }
  void wait() {
    const MutexLock lock(mutex_);
    while (left_ > 0) done_.wait(mutex_);
  }

 private:
  const std::vector<Load*> loads_;
  std::atomic<std::size_t> next_ = 0;
  storage::Mutex mutex_;
  storage::Condition done_;
  std::size_t left_ PERENNIAL_GUARDED_BY(mutex_);
};

}  // namespace

void start_load(CacheState& cache, PageKey page, std::uint32_t frame, std::uint64_t pins,
                Load& load) {
  std::atomic<std::uint64_t>& word = cache.table.word(page);
  const std::uint64_t old = word.load();
  load.page = page;
  load.frame = frame;
  load.from = page_word::state(old);
  load.bytes = frame_bytes(cache, page, frame);
  if (load.from == PageState::spilled) {
    ChangedPage& changed = cache.changed.at(page.packed());
    ++changed.busy;
    load.slot = changed.slot;
    load.spill = cache.spill.get();
  }
  word.store((old & page_word::kStored) | pins * page_word::kPin |
             page_word::of(PageState::loading) | frame);
}

void run_loads(CacheState& cache, std::vector<Load>& loads) {
  std::vector<Load*> computed, read;
  for (Load& load : loads) (load.from == PageState::initial ? computed : read).push_back(&load);
  const auto start = [&cache](std::vector<Load*> list, unsigned threads, auto&& pool) {
    auto batch = std::make_shared<LoadBatch>(std::move(list));
    // The caller takes part: one load needs no other thread.
    const std::size_t helpers = std::min<std::size_t>(threads, batch->size()) - (batch->size() > 0);
    for (std::size_t i = 0; i < helpers; ++i) {
      boost::asio::post(pool(), [&cache, batch] { batch->work(cache); });
    }
    return batch;
  };
  Workers& workers = cache.workers;
  const auto reading = start(
      std::move(read), workers.count_readers(), [&]() -> auto& { return workers.readers(); });
  const auto computing = start(
      std::move(computed), workers.count_fillers(), [&]() -> auto& { return workers.fillers(); });
  computing->work(cache);
  reading->work(cache);
  computing->wait();
  reading->wait();
}

void load_ahead(CacheState& cache) {
  const MutexLock lock(cache.turns.mutex);
  std::deque<std::uint64_t>& ahead = cache.background.ahead;
  while (!ahead.empty() && !cache.background.stopping && !cache.turns.closed()) {
    const PageKey page = PageKey::of(ahead.front());
    ahead.pop_front();
    if (!in_no_frame(cache.table.state(page))) continue;
    const std::uint32_t size = cache.table.pages(page).size;
    const Result<std::uint32_t> frame = acquire(cache, size, Want::prefetch);
    if (!frame.ok() || *frame == kNoFrame) {
      ahead.clear();
      break;
    }
    if (!in_no_frame(cache.table.state(page))) {
      cache.frames.put_back(size, *frame);
      continue;
    }
    Load load;
    start_load(cache, page, *frame, 0, load);
    {
      const MutexUnlock meanwhile(cache.turns.mutex);
      load.status = fill(cache, load);
    }
    finish_load(cache, load, true);
  }
  cache.turns.end_job();
}

}  // namespace perennial
