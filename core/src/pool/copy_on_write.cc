// SPDX-License-Identifier: Apache-2.0
#include "pool/copy_on_write.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cstring>

#include "pool/eviction.h"

namespace perennial {

using storage::MutexLock;
using storage::MutexUnlock;
using storage::Result;
using storage::Status;
using storage::StatusCode;
using Taking = Epoch::Taking;

namespace {

// Adds frames of a size until `wanted` are free: the work of a job that was begun.
void add_shadows(CacheState& cache, std::uint32_t size, std::uint32_t wanted) {
  const MutexLock lock(cache.turns.mutex);
  while (!cache.background.stopping && !cache.turns.alone() && cache.epoch.in_flight &&
         cache.frames.free(size) < wanted) {
    const std::uint32_t frame = cache.frames.add(size);
    if (frame == kNoFrame) break;
    const std::span<std::byte> bytes = cache.frames.bytes(size, frame);
    {
      const MutexUnlock meanwhile(cache.turns.mutex);
      std::memset(bytes.data(), 0, bytes.size());
    }
    cache.frames.put_back(size, frame);
    cache.turns.notify();
  }
  cache.background.preparing[size] = false;
  cache.turns.end_job();
}

}  // namespace

void prepare_shadows(CacheState& cache, const std::vector<std::uint32_t>& wanted) {
  std::vector<bool>& preparing = cache.background.preparing;
  preparing.resize(cache.frames.sizes());
  for (std::uint32_t size = 0; size < wanted.size(); ++size) {
    const std::uint32_t most = std::min(wanted[size], cache.options.shadow_frames);
    if (cache.frames.free(size) >= most || !cache.frames.may_add(size) || preparing[size] ||
        cache.background.stopping) {
      continue;
    }
    preparing[size] = true;
    cache.turns.begin_job();
    boost::asio::post(cache.workers.readers(),
                      [&cache, size, most] { add_shadows(cache, size, most); });
  }
}

Result<bool> detach(CacheState& cache, ChangedPage& changed, PageKey page) {
  Epoch::Entry& entry = cache.epoch.entries[changed.entry];
  if (entry.detached || entry.taking == Taking::taken) return true;
  if (entry.taking == Taking::moving) {
    cache.turns.wait();
    return false;
  }
  if (changed.slot) {  // what was spilled serves the commit
    std::swap(entry.slot, changed.slot);
    entry.detached = true;
    return true;
  }
  const std::span<const std::byte> live =
      frame_bytes(cache, page, page_word::frame(cache.table.word(page).load()));
  entry.taking = Taking::moving;
  const Result<std::uint32_t> frame = acquire(cache, entry.size, Want::clean);
  Status status = frame.ok() ? Status() : frame.status();
  if (cache.frames.free(entry.size) < cache.options.shadow_frames / 2) {
    std::vector<std::uint32_t> wanted(cache.frames.sizes());
    wanted[entry.size] = cache.options.shadow_frames;
    prepare_shadows(cache, wanted);
  }
  if (status.ok() && *frame != kNoFrame) {
    std::byte* const to = cache.frames.bytes(entry.size, *frame).data();
    {
      const MutexUnlock meanwhile(cache.turns.mutex);
      std::memcpy(to, live.data(), live.size());
    }
    entry.frame = *frame;
    cache.epoch.shadows.push_back(changed.entry);
  } else if (status.ok()) {
    const Turns::Clock::time_point start = Turns::Clock::now();
    const Result<ChangedPage::Slot> slot = write_slot(cache, entry.id, live);
    cache.turns.count_wait(start);
    if (slot.ok()) {
      entry.slot = *slot;
    } else {
      status = slot.status();
    }
  }
  entry.taking = Taking::pending;
  cache.turns.notify();
  if (!status.ok()) return status;
  entry.detached = true;
  ++cache.count.copied;
  return true;
}

void release_source(CacheState& cache, Epoch::Entry& entry) {
  if (entry.frame != kNoFrame) {
    cache.frames.put_back(entry.size, std::exchange(entry.frame, kNoFrame));
    std::erase(cache.epoch.shadows,
               static_cast<std::uint32_t>(&entry - cache.epoch.entries.data()));
  }
  free_slot(cache, entry.slot);
}

Result<std::span<const std::byte>> payload(CacheState& cache, std::uint64_t number,
                                           std::uint32_t index, std::vector<std::byte>& buffer) {
  const MutexLock lock(cache.turns.mutex);
  Epoch& epoch = cache.epoch;
  while (epoch.writes(number) && epoch.entries[index].taking == Taking::moving) {
    cache.turns.wait();
  }
  if (!epoch.writes(number)) {
    return Status(StatusCode::invalid_argument, "payload of a commit that has ended");
  }
  Epoch::Entry& entry = epoch.entries[index];
  if (entry.taking == Taking::taken) {
    return Status(StatusCode::invalid_argument, to_string(entry.id) + ": payload taken before");
  }
  entry.taking = Taking::moving;
  ChangedPage* live = nullptr;
  std::uint32_t frame = entry.frame;
  std::optional<ChangedPage::Slot> slot = entry.slot;
  if (!entry.detached) {
    live = &cache.changed.at(entry.page);
    ++live->busy;
    const std::uint64_t w = cache.table.word(PageKey::of(entry.page)).load();
    if (in_frame(page_word::state(w))) frame = page_word::frame(w);
    slot = live->slot;
  }
  std::span<const std::byte> from;
  if (frame != kNoFrame) from = cache.frames.bytes(entry.size, frame);
  buffer.resize(cache.frames.frame_bytes(entry.size));
  const storage::SpillFile* const spill = cache.spill.get();
  Status status;
  {
    const MutexUnlock meanwhile(cache.turns.mutex);
    if (!from.empty()) {
      std::memcpy(buffer.data(), from.data(), buffer.size());
    } else {
      status = spill->read(*slot, buffer);
    }
  }
  if (live != nullptr) --live->busy;
  entry.taking = status.ok() ? Taking::taken : Taking::pending;
  if (status.ok()) release_source(cache, entry);
  cache.turns.notify();
  if (!status.ok()) return about(entry.id, status);
  return std::span<const std::byte>(buffer);
}

}  // namespace perennial
