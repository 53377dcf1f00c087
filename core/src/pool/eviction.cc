// SPDX-License-Identifier: Apache-2.0
#include "pool/eviction.h"

#include <algorithm>
#include <boost/asio/post.hpp>

namespace perennial {

using storage::MutexLock;
using storage::MutexUnlock;
using storage::Result;
using storage::SpillFile;
using storage::Status;

namespace {

// What the order of eviction may know of pages.
class PagesInUse : public PageUse {
 public:
  PagesInUse(CacheState& cache, Want want) : cache_(cache), want_(want) {}

  bool evictable(std::uint64_t packed) PERENNIAL_REQUIRES(cache_.turns.mutex) override {
    std::atomic<std::uint64_t>& word = this->word(packed);
    const std::uint64_t w = word.load();
    if (page_word::pins(w) > 0 || !in_frame(page_word::state(w))) return false;
    if ((w & page_word::kAhead) != 0) {
      // Named ahead: stays one more round for those who need a frame at once, always for others.
      if (want_ == Want::demand) update_word(word, page_word::kAhead, 0);
      return false;
    }
    if (page_word::state(w) == PageState::resident) return true;
    const ChangedPage& changed = cache_.changed.at(packed);
    return changed.busy == 0 && (want_ != Want::clean || changed.slot);
  }
  std::uint32_t frequency(std::uint64_t packed) override {
    return page_word::frequency(word(packed).load());
  }
  void set_frequency(std::uint64_t packed, std::uint32_t frequency) override {
    update_word(word(packed), page_word::kFrequency,
                std::uint64_t{frequency} << page_word::kFrequencyShift);
  }

 private:
  std::atomic<std::uint64_t>& word(std::uint64_t packed) {
    return cache_.table.word(PageKey::of(packed));
  }
  CacheState& cache_;
  Want want_;
};

// Takes an unpinned page out of its frame if its content is elsewhere too; the frame is the
// caller's then.
bool give_up_frame(CacheState& cache, PageKey page, std::uint32_t frame)
    PERENNIAL_REQUIRES(cache.turns.mutex) {
  PageTable::Pages& pages = cache.table.pages(page);
  std::atomic<std::uint64_t>& word = pages.words[page.page];
  std::uint64_t old = word.load();
  PageState left = (old & page_word::kStored) != 0 ? PageState::absent : PageState::initial;
  if (page_word::state(old) != PageState::resident) {
    const ChangedPage& changed = cache.changed.at(page.packed());
    if (changed.busy > 0 || !changed.slot) return false;
    left = PageState::spilled;
  }
  do {
    if (page_word::pins(old) > 0 || page_word::frame(old) != frame) return false;
  } while (!word.compare_exchange_weak(old, (old & page_word::kStored) | page_word::of(left)));
  pages.frames[page.page] = nullptr;
  ++cache.count.evicted;
  return true;
}

// Copies an unpinned changed page to the spill file. Who wants to write to it waits for that.
Status spill(CacheState& cache, PageKey page, std::uint32_t frame)
    PERENNIAL_REQUIRES(cache.turns.mutex) {
  ChangedPage& changed = cache.changed.at(page.packed());
  ++changed.busy;
  const Result<SpillFile::Slot> slot =
      write_slot(cache, cache.table.id(page), frame_bytes(cache, page, frame));
  --changed.busy;
  if (slot.ok()) changed.slot = *slot;
  cache.turns.notify();
  return slot.ok() ? Status() : slot.status();
}

// Moves a copy that a commit still needs from its frame to the spill file. False when there is
// none to move.
Result<bool> spill_shadow(CacheState& cache) PERENNIAL_REQUIRES(cache.turns.mutex) {
  Epoch& epoch = cache.epoch;
  for (const std::uint32_t index : epoch.shadows) {
    Epoch::Entry& entry = epoch.entries[index];
    if (entry.taking != Epoch::Taking::pending) continue;
    entry.taking = Epoch::Taking::moving;
    const Result<SpillFile::Slot> slot =
        write_slot(cache, entry.id, cache.frames.bytes(entry.size, entry.frame));
    entry.taking = Epoch::Taking::pending;
    if (slot.ok()) {
      entry.slot = *slot;
      cache.frames.put_back(entry.size, std::exchange(entry.frame, kNoFrame));
      std::erase(epoch.shadows, index);
    }
    cache.turns.notify();
    if (!slot.ok()) return slot.status();
    return true;
  }
  return false;
}

// A changed page that nobody uses and that is nowhere but in its frame.
bool may_spill(CacheState& cache, const S3Fifo::Resident& resident)
    PERENNIAL_REQUIRES(cache.turns.mutex) {
  const std::uint64_t w = cache.table.word(PageKey::of(resident.page)).load();
  if (page_word::pins(w) > 0 || page_word::state(w) < PageState::dirty ||
      page_word::frame(w) != resident.frame) {
    return false;
  }
  const ChangedPage& changed = cache.changed.at(resident.page);
  return changed.busy == 0 && !changed.slot;
}

void spill_all(CacheState& cache, const std::vector<S3Fifo::Resident>& residents) {
  const MutexLock lock(cache.turns.mutex);
  for (const S3Fifo::Resident& resident : residents) {
    if (cache.background.stopping || cache.turns.alone()) break;
    if (!may_spill(cache, resident)) continue;
    if (!spill(cache, PageKey::of(resident.page), resident.frame).ok()) {
      cache.background.spill_failed = true;
      break;
    }
  }
  cache.background.spilling = false;
  cache.turns.end_job();
}

// Starts a job that spills the changed pages that are about to leave, unless one runs.
void spill_ahead(CacheState& cache, std::uint32_t size) PERENNIAL_REQUIRES(cache.turns.mutex) {
  Background& background = cache.background;
  const std::size_t most =
      std::min<std::size_t>(cache.options.spill_ahead, cache.frames.in_use(size) / 4);
  if (most == 0 || background.spilling || background.spill_failed || background.stopping) return;
  std::vector<S3Fifo::Resident> residents;
  for (const S3Fifo::Resident& resident : cache.frames.next(size, most)) {
    if (may_spill(cache, resident)) residents.push_back(resident);
  }
  // A few at a time: a job for each would cost more than it hides.
  if (residents.size() * 4 < most || residents.empty()) return;
  background.spilling = true;
  cache.turns.begin_job();
  boost::asio::post(cache.workers.readers(),
                    [&cache, residents = std::move(residents)] { spill_all(cache, residents); });
}

}  // namespace

Result<SpillFile::Slot> write_slot(CacheState& cache, const storage::PageId& id,
                                   std::span<const std::byte> bytes) {
  if (cache.spill == nullptr) {
    auto created = SpillFile::create(cache.store == nullptr ? std::filesystem::temp_directory_path()
                                                            : cache.store->scratch_folder());
    if (!created.ok()) return about(id, created.status());
    cache.spill = std::move(created).value();
  }
  SpillFile& file = *cache.spill;
  const Result<SpillFile::Slot> slot = [&]() PERENNIAL_REQUIRES(cache.turns.mutex) {
    const MutexUnlock meanwhile(cache.turns.mutex);
    return file.write(bytes);
  }();
  if (!slot.ok()) return about(id, slot.status());
  ++cache.count.spilled;
  return *slot;
}

Result<std::uint32_t> acquire(CacheState& cache, std::uint32_t size, Want want) {
  bool second_round = false;
  for (;;) {
    if (const std::uint32_t free = cache.frames.take(size); free != kNoFrame) return free;
    PagesInUse use(cache, want);
    const std::optional<Frames::Victim> victim = cache.frames.victim(size, use);
    if (!victim) {
      if (want != Want::demand) return kNoFrame;
      if (!second_round) {  // those named ahead are fair game now
        second_round = true;
        continue;
      }
      const Result<bool> moved = spill_shadow(cache);
      if (!moved.ok()) return moved.status();
      if (!*moved) return kNoFrame;
      continue;
    }
    const auto [frame, packed, since] = victim->resident;
    const PageKey page = PageKey::of(packed);
    Status status;
    bool left = give_up_frame(cache, page, frame);
    if (!left && may_spill(cache, victim->resident)) {
      status = spill(cache, page, frame);
      left = status.ok() && give_up_frame(cache, page, frame);
    }
    if (!left) {
      cache.frames.keep(*victim);
      if (!status.ok()) return status;
      continue;
    }
    spill_ahead(cache, victim->size);
    if (victim->size == size) return frame;
    cache.frames.put_back(victim->size, frame);  // its memory serves the size that is needed
  }
}

}  // namespace perennial
