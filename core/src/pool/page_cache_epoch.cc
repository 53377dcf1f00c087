// SPDX-License-Identifier: Apache-2.0
// Commits beside training: what an epoch writes is fixed when it begins.
#include <algorithm>
#include <boost/asio/post.hpp>
#include <cstring>
#include <utility>

#include "perennial/core/error.h"
#include "pool/page_cache.h"
#include "pool/page_cache_link.h"

namespace perennial {

using storage::Result;
using storage::Status;
using storage::StatusCode;

void PageCache::begin_epoch(storage::CommitRequest& request) {
  Lock lock(mutex_);
  if (in_epoch_) {
    throw Error("a commit is in flight: say committed() or commit_failed() before the next one");
  }
  gate_ |= kEpoch;
  ++waiting_;
  changed_something_.wait(lock, [&] { return writing_.load() == 0; });
  --waiting_;
  entries_.clear();
  entries_.reserve(changed_.size());
  for (const auto& [page, changed] : changed_) {
    entries_.emplace_back();
    entries_.back().page = page;
  }
  std::sort(entries_.begin(), entries_.end(),
            [](const Entry& a, const Entry& b) { return a.page < b.page; });
  in_epoch_ = true;
  ++epoch_;
  request.pages.reserve(request.pages.size() + entries_.size());
  std::array<std::uint32_t, 2> pages{};
  for (std::uint32_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    const PageKey page = PageKey::of(entry.page);
    Changed& c = changed_.at(entry.page);
    std::atomic<std::uint64_t>& w = word(page);
    entry.id = source_.id(page);
    entry.touched = touched(page).exchange(0);
    set_dirty(c, page.kind, false);
    c.entry = i;
    if (in_frame(page_word::state(w.load()))) set_state(w, PageState::writing);
    ++pages[kind_index(page.kind)];
    // Bits are differences to a version that the store has.
    const std::uint64_t touched = (w.load() & page_word::kStored) != 0 ? entry.touched : 0;
    request.pages.push_back(
        {entry.id, source_.shape(page.kind),
         [link = link_, epoch = epoch_, i]() { return payload_of(*link, epoch, i); }, touched});
  }
  epoch_removed_ = std::exchange(removed_, {});
  request.removed_pages.insert(request.removed_pages.end(), epoch_removed_.begin(),
                               epoch_removed_.end());
  gate_ &= ~kEpoch;
  prepare_shadows(pages);
  notify(lock);
}

Result<std::span<const std::byte>> PageCache::payload_of(Link& link, std::uint64_t epoch,
                                                         std::uint32_t entry) {
  const std::lock_guard lock(link.mutex);
  if (link.cache == nullptr) {
    return Status(StatusCode::invalid_argument, "the pool of a commit in flight is gone");
  }
  return link.cache->payload(epoch, entry, link.buffer);
}

bool PageCache::epoch_in_flight() const {
  const Lock lock(mutex_);
  return in_epoch_;
}

// Copies the bytes of an epoch's page, wherever they are, and lets go of them.
Result<std::span<const std::byte>> PageCache::payload(std::uint64_t epoch, std::uint32_t index,
                                                      std::vector<std::byte>& buffer) {
  Lock lock(mutex_);
  const auto over = [&] { return !in_epoch_ || epoch != epoch_; };
  while (!over() && entries_[index].taking == Taking::moving) wait(lock);
  if (over() || entries_[index].taking == Taking::taken) {
    return Status(StatusCode::invalid_argument,
                  over() ? "payload of a commit that has ended"
                         : to_string(entries_[index].id) + ": payload taken before");
  }
  Entry& entry = entries_[index];
  entry.taking = Taking::moving;
  Kind& kind = kinds_[kind_index(PageKey::of(entry.page).kind)];
  buffer.resize(kind.bytes);
  Changed* live = nullptr;
  std::uint32_t frame = entry.frame;
  std::optional<Slot> slot = entry.slot;
  if (!entry.detached) {
    live = &changed_.at(entry.page);
    ++live->busy;
    const std::uint64_t w = word(PageKey::of(entry.page)).load();
    if (in_frame(page_word::state(w))) frame = page_word::frame(w);
    slot = live->slot;
  }
  const std::byte* from = frame == kNoFrame ? nullptr : bytes(kind, frame).data();
  lock.unlock();
  Status status;
  if (from != nullptr) {
    std::memcpy(buffer.data(), from, buffer.size());
  } else {
    status = spill_->read(*slot, buffer);
  }
  lock.lock();
  if (live != nullptr) --live->busy;
  entry.taking = status.ok() ? Taking::taken : Taking::pending;
  if (status.ok()) {
    release_source(entry);
  } else {
    status = about(entry.id, status);
  }
  notify(lock);
  if (!status.ok()) return status;
  return std::span<const std::byte>(buffer);
}

// Gives back what an entry holds of its own.
void PageCache::release_source(Entry& entry) {
  Kind& kind = kinds_[kind_index(PageKey::of(entry.page).kind)];
  if (entry.frame != kNoFrame) {
    kind.free.push_back(std::exchange(entry.frame, kNoFrame));
    std::erase(kind.shadows, static_cast<std::uint32_t>(&entry - entries_.data()));
  }
  free_slot(entry.slot);
}

// Sees to it that a commit keeps the bytes of a page that is about to change. False: somebody is
// just taking them.
Result<bool> PageCache::detach(Lock& lock, Changed& changed, PageKey page) {
  const std::uint32_t index = changed.entry;
  if (entries_[index].detached || entries_[index].taking == Taking::taken) return true;
  if (entries_[index].taking == Taking::moving) {
    wait(lock);
    return false;
  }
  if (changed.slot) {  // what was spilled serves the commit
    std::swap(entries_[index].slot, changed.slot);
    entries_[index].detached = true;
    return true;
  }
  const std::size_t kind = kind_index(page.kind);
  const std::span<const std::byte> live = bytes(kinds_[kind], page_word::frame(word(page).load()));
  entries_[index].taking = Taking::moving;
  const Result<std::uint32_t> frame = acquire(lock, kind, Want::clean);
  Status status = frame.ok() ? Status() : frame.status();
  if (kinds_[kind].free.size() < options_.shadow_frames / 2) {
    std::array<std::uint32_t, 2> wanted{};
    wanted[kind] = options_.shadow_frames;
    prepare_shadows(wanted);
  }
  if (status.ok() && *frame != kNoFrame) {
    std::byte* to = bytes(kinds_[kind], *frame).data();
    lock.unlock();
    std::memcpy(to, live.data(), live.size());
    lock.lock();
    entries_[index].frame = *frame;
    kinds_[kind].shadows.push_back(index);
  } else if (status.ok()) {
    const auto start = std::chrono::steady_clock::now();
    const Result<Slot> slot = write_slot(lock, page.packed(), live);
    ++count_.waits;
    count_.wait_ns +=
        static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                       std::chrono::steady_clock::now() - start)
                                       .count());
    if (slot.ok()) {
      entries_[index].slot = *slot;
    } else {
      status = slot.status();
    }
  }
  entries_[index].taking = Taking::pending;
  notify(lock);
  if (!status.ok()) return status;
  entries_[index].detached = true;
  ++count_.copied;
  return true;
}

// Adds frames, touched once so that no writer meets the kernel's zeroing, in the background.
void PageCache::prepare_shadows(std::array<std::uint32_t, 2> wanted) {
  for (std::size_t kind = 0; kind < 2; ++kind) {
    const Kind& k = kinds_[kind];
    wanted[kind] = std::min(wanted[kind], options_.shadow_frames);
    if (k.slab == nullptr || k.free.size() >= wanted[kind] || k.slab->frames() >= k.limit ||
        preparing_[kind] || stopping_) {
      continue;
    }
    preparing_[kind] = true;
    ++background_;
    boost::asio::post(readers(), [this, kind, most = wanted[kind]] {
      Lock lock(mutex_);
      Kind& of = kinds_[kind];
      while (!stopping_ && (gate_.load() & kExclusive) == 0 && in_epoch_ && of.free.size() < most &&
             of.slab->frames() < of.limit) {
        const std::uint32_t frame = of.slab->add();
        of.page_of.resize(of.slab->frames(),
                          PageKey{static_cast<storage::PageKind>(kind), 0, 0}.packed());
        count_.peak = std::max<std::uint64_t>(count_.peak, resident_bytes());
        const std::span<std::byte> touched = bytes(of, frame);
        lock.unlock();
        std::memset(touched.data(), 0, touched.size());
        lock.lock();
        of.free.push_back(frame);
        notify(lock);
      }
      preparing_[kind] = false;
      --background_;
      notify(lock);
    });
  }
}

void PageCache::end_epoch(bool success) {
  Lock lock(mutex_);
  if (!in_epoch_) return;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    while (entries_[i].taking == Taking::moving) wait(lock);
    entries_[i].taking = Taking::taken;
    release_source(entries_[i]);
    if (entries_[i].dropped) continue;
    // Whoever reads the page's frame or slot just now is waited for.
    while (changed_.at(entries_[i].page).busy > 0) wait(lock);
    const Entry& entry = entries_[i];
    const PageKey page = PageKey::of(entry.page);
    std::atomic<std::uint64_t>& w = word(page);
    Changed& c = changed_.at(entry.page);
    const PageState state = page_word::state(w.load());
    c.entry = kNoEntry;
    if (success) {
      update(w, 0, page_word::kStored);
      if (c.dirty) continue;
      set_state(w, in_frame(state) ? PageState::resident : PageState::absent);
      forget(entry.page);
    } else {
      touched(page) |= entry.touched;
      set_dirty(c, page.kind, true);
      if (in_frame(state)) set_state(w, PageState::dirty);
    }
  }
  if (!success) removed_.insert(removed_.end(), epoch_removed_.begin(), epoch_removed_.end());
  std::sort(removed_.begin(), removed_.end());
  removed_.erase(std::unique(removed_.begin(), removed_.end()), removed_.end());
  epoch_removed_.clear();
  entries_.clear();
  in_epoch_ = false;
  spill_failed_ = false;
  notify(lock);
}

Status PageCache::copy(PageKey page, std::span<std::byte> to) {
  const Result<bool> changed = read_changed(page, [&](std::span<const std::byte> bytes) {
    std::memcpy(to.data(), bytes.data(), to.size());
  });
  if (!changed.ok()) return changed.status();
  if (*changed) return {};
  if ((word(page).load() & page_word::kStored) != 0) {
    return store_->read_page(source_.id(page), to);
  }
  source_.fill_initial(page, to);
  return {};
}

Result<bool> PageCache::read_changed(PageKey page,
                                     const std::function<void(std::span<const std::byte>)>& read) {
  Lock lock(mutex_);
  const auto found = changed_.find(page.packed());
  if (found == changed_.end()) return false;
  Changed& c = found->second;
  Kind& kind = kinds_[kind_index(page.kind)];
  ++c.busy;
  const std::uint64_t w = word(page).load();
  std::span<const std::byte> content;
  if (in_frame(page_word::state(w))) content = bytes(kind, page_word::frame(w));
  const std::optional<Slot> slot = c.slot;
  lock.unlock();
  std::vector<std::byte> buffer;
  Status status;
  if (content.empty()) {
    buffer.resize(kind.bytes);
    status = spill_->read(*slot, buffer);
    content = buffer;
  }
  if (status.ok()) read(content);
  lock.lock();
  --c.busy;
  notify(lock);
  if (!status.ok()) return about(source_.id(page), status);
  return true;
}

}  // namespace perennial
