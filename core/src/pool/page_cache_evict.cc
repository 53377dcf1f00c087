// SPDX-License-Identifier: Apache-2.0
// Frames for pages that come in: whose page leaves, and where changed ones go.
#include <algorithm>
#include <boost/asio/post.hpp>

#include "pool/page_cache.h"

namespace perennial {

using storage::Result;
using storage::SpillFile;
using storage::Status;

// What the policy may know of the frames; the caller holds the mutex.
class PageCache::Use : public FrameUse {
 public:
  Use(PageCache& cache, const Kind& kind, Want want) : cache_(cache), kind_(kind), want_(want) {}

  bool evictable(std::uint32_t frame) override {
    const PageKey page = page_in(frame);
    std::atomic<std::uint64_t>& word = cache_.word(page);
    const std::uint64_t w = word.load();
    if (page_word::pins(w) > 0 || !in_frame(page_word::state(w))) return false;
    if ((w & page_word::kAhead) != 0) {
      // Named ahead: stays one more round for those who need a frame at once, always for others.
      if (want_ == Want::demand) update(word, page_word::kAhead, 0);
      return false;
    }
    if (page_word::state(w) == PageState::resident) return true;
    const Changed& changed = cache_.changed_.at(page.packed());
    return changed.busy == 0 && (want_ != Want::clean || changed.slot);
  }
  std::uint32_t frequency(std::uint32_t frame) override {
    return page_word::frequency(cache_.word(page_in(frame)).load());
  }
  void set_frequency(std::uint32_t frame, std::uint32_t frequency) override {
    update(cache_.word(page_in(frame)), page_word::kFrequency,
           std::uint64_t{frequency} << page_word::kFrequencyShift);
  }
  std::uint64_t last_use(std::uint32_t frame) override {
    const PageKey page = page_in(frame);
    return cache_.regions_[page.region]->last_use[kind_index(page.kind)][page.page].load();
  }

 private:
  PageKey page_in(std::uint32_t frame) const { return PageKey::of(kind_.page_of[frame]); }
  PageCache& cache_;
  const Kind& kind_;
  Want want_;
};

// Takes an unpinned page out of its frame if its content is elsewhere too; the frame is the
// caller's then.
bool PageCache::give_up_frame(PageKey page, std::uint32_t frame) {
  std::atomic<std::uint64_t>& word = this->word(page);
  std::uint64_t old = word.load();
  const PageState state = page_word::state(old);
  PageState left = (old & page_word::kStored) != 0 ? PageState::absent : PageState::initial;
  if (state != PageState::resident) {
    const Changed& c = changed_.at(page.packed());
    if (c.busy > 0 || !c.slot) return false;
    left = PageState::spilled;
  }
  do {
    if (page_word::pins(old) > 0 || page_word::frame(old) != frame) return false;
  } while (!word.compare_exchange_weak(old, (old & page_word::kStored) | page_word::of(left)));
  regions_[page.region]->frames[kind_index(page.kind)][page.page] = nullptr;
  ++count_.evicted;
  return true;
}

// Writes bytes that stay as they are to the spill file, without the mutex.
Result<SpillFile::Slot> PageCache::write_slot(Lock& lock, std::uint64_t page,
                                              std::span<const std::byte> bytes) {
  const PageKey key = PageKey::of(page);
  if (spill_ == nullptr) {
    const std::filesystem::path folder =
        store_ == nullptr ? std::filesystem::temp_directory_path() : store_->scratch_folder();
    auto created = SpillFile::create(folder);
    if (!created.ok()) return about(source_.id(key), created.status());
    spill_ = std::move(created).value();
  }
  lock.unlock();
  Result<Slot> slot = spill_->write(bytes);
  lock.lock();
  if (!slot.ok()) return about(source_.id(key), slot.status());
  ++count_.spilled;
  return slot;
}

// Copies an unpinned changed page to the spill file. Who wants to write to it waits for that.
Status PageCache::spill(Lock& lock, PageKey page, std::uint32_t frame) {
  Changed& c = changed_.at(page.packed());
  ++c.busy;
  Result<Slot> slot = write_slot(lock, page.packed(), bytes(kinds_[kind_index(page.kind)], frame));
  --c.busy;
  if (slot.ok()) c.slot = *slot;
  notify(lock);
  return slot.ok() ? Status() : slot.status();
}

// Moves a copy that a commit still needs from its frame to the spill file. False when there is
// none to move.
Result<bool> PageCache::spill_shadow(Lock& lock, Kind& kind) {
  for (std::size_t i = 0; i < kind.shadows.size(); ++i) {
    const std::uint32_t index = kind.shadows[i];
    if (entries_[index].taking != Taking::pending) continue;
    entries_[index].taking = Taking::moving;
    Result<Slot> slot = write_slot(lock, entries_[index].page, bytes(kind, entries_[index].frame));
    Entry& entry = entries_[index];
    entry.taking = Taking::pending;
    if (slot.ok()) {
      entry.slot = *slot;
      kind.free.push_back(entry.frame);
      entry.frame = kNoFrame;
      std::erase(kind.shadows, index);
    }
    notify(lock);
    if (!slot.ok()) return slot.status();
    return true;
  }
  return false;
}

// A frame: a free one, a new one within the limit, or that of a page that leaves. kNoFrame when all
// are in use. May let go of the mutex meanwhile, to spill.
Result<std::uint32_t> PageCache::acquire(Lock& lock, std::size_t kind, Want want) {
  Kind& k = kinds_[kind];
  bool second_round = false;
  for (;;) {
    if (!k.free.empty()) {
      const std::uint32_t frame = k.free.back();
      k.free.pop_back();
      return frame;
    }
    if (k.slab != nullptr && k.slab->frames() < k.limit) {
      const std::uint32_t frame = k.slab->add();
      k.page_of.resize(k.slab->frames(),
                       PageKey{static_cast<storage::PageKind>(kind), 0, 0}.packed());
      count_.peak = std::max<std::uint64_t>(count_.peak, resident_bytes());
      return frame;
    }
    Use use(*this, k, want);
    const std::uint32_t frame = k.policy->victim(use);
    if (frame == kNoFrame) {
      if (want != Want::demand) return kNoFrame;
      if (!second_round) {  // those named ahead are fair game now
        second_round = true;
        continue;
      }
      const Result<bool> moved = spill_shadow(lock, k);
      if (!moved.ok()) return moved.status();
      if (!*moved) return kNoFrame;
      continue;
    }
    const std::uint64_t packed = k.page_of[frame];
    const PageKey page = PageKey::of(packed);
    if (give_up_frame(page, frame)) {
      spill_ahead(kind);
      return frame;
    }
    Status status;
    const auto found = changed_.find(packed);
    if (found != changed_.end() && found->second.busy == 0 && !found->second.slot) {
      status = spill(lock, page, frame);
    }
    if (status.ok() && give_up_frame(page, frame)) {
      spill_ahead(kind);
      return frame;
    }
    k.policy->keep(frame, packed);
    if (!status.ok()) return status;
  }
}

// Starts a job that spills the changed pages that are about to leave, unless one runs.
void PageCache::spill_ahead(std::size_t kind) {
  if (options_.spill_ahead == 0 || spilling_ahead_ || spill_failed_ || stopping_) return;
  const Kind& k = kinds_[kind];
  const auto wanted = [this](const Kind& of, std::uint32_t frame) {
    const std::uint64_t w = word(PageKey::of(of.page_of[frame])).load();
    if (page_word::pins(w) > 0 || page_word::state(w) < PageState::dirty) return false;
    const Changed& c = changed_.at(of.page_of[frame]);
    return c.busy == 0 && !c.slot;
  };
  std::vector<std::uint32_t> frames =
      k.policy->next(std::min<std::size_t>(options_.spill_ahead, k.slab->frames() / 4));
  std::erase_if(frames, [&](std::uint32_t frame) { return !wanted(k, frame); });
  // A few at a time: a job for each would cost more than it hides.
  if (frames.size() * 4 < std::min<std::size_t>(options_.spill_ahead, k.slab->frames() / 4) ||
      frames.empty()) {
    return;
  }
  spilling_ahead_ = true;
  ++background_;
  boost::asio::post(readers(), [this, kind, wanted, frames = std::move(frames)] {
    Lock lock(mutex_);
    for (const std::uint32_t frame : frames) {
      const Kind& of = kinds_[kind];
      if (stopping_ || (gate_.load() & kExclusive) != 0) break;
      if (!wanted(of, frame)) continue;
      const PageKey page = PageKey::of(of.page_of[frame]);
      if (page_word::frame(word(page).load()) != frame) continue;
      if (!spill(lock, page, frame).ok()) {
        spill_failed_ = true;
        break;
      }
    }
    spilling_ahead_ = false;
    --background_;
    notify(lock);
  });
}

}  // namespace perennial
