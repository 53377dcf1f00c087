// SPDX-License-Identifier: Apache-2.0
#include "pool/s3_fifo.h"

#include <algorithm>

namespace perennial {

namespace {

constexpr std::size_t kSmallShare = 10;  // the small queue has a tenth of the frames
constexpr std::uint32_t kPromote = 2;    // uses that lead from small to main

S3Fifo::Resident take(std::deque<S3Fifo::Resident>& queue) {
  const S3Fifo::Resident r = queue.front();
  queue.pop_front();
  return r;
}

}  // namespace

void S3Fifo::insert(std::uint32_t frame, std::uint64_t page, std::uint64_t now) {
  const bool remembered = ghosts_.erase(page) > 0;
  (remembered ? main_ : small_).push_back({frame, page, now});
}

void S3Fifo::keep(const Resident& resident, std::uint64_t now) {
  main_.push_back({resident.frame, resident.page, now});
}

void S3Fifo::remove_if(const std::function<bool(std::uint64_t)>& left) {
  for (Queue* queue : {&small_, &main_}) {
    std::erase_if(*queue, [&](const Resident& r) { return left(r.page); });
  }
}

bool S3Fifo::small_is_next() const {
  return !small_.empty() &&
         (main_.empty() || small_.size() * kSmallShare >= small_.size() + main_.size());
}

std::optional<S3Fifo::Resident> S3Fifo::victim(PageUse& use, std::uint64_t now) {
  // Each round either promotes, counts down, or meets a page that must stay.
  std::size_t small_left = small_.size();
  std::size_t main_left = (kMaxFrequency + 1) * (main_.size() + small_.size());
  const auto again = [now](Queue& queue, const Resident& r) {
    queue.push_back({r.frame, r.page, now});
  };
  while (small_left > 0 || main_left > 0) {
    const std::size_t frames = small_.size() + main_.size();
    if (small_left > 0 && !small_.empty() && (main_left == 0 || small_is_next())) {
      --small_left;
      const Resident r = take(small_);
      if (!use.evictable(r.page)) {
        again(small_, r);
      } else if (use.frequency(r.page) >= kPromote) {
        use.set_frequency(r.page, 0);
        again(main_, r);
      } else {
        remember(r.page, frames);
        return r;
      }
    } else if (main_left > 0 && !main_.empty()) {
      --main_left;
      const Resident r = take(main_);
      const bool evictable = use.evictable(r.page);
      const std::uint32_t frequency = evictable ? use.frequency(r.page) : 1;
      if (frequency == 0) return r;
      if (evictable) use.set_frequency(r.page, frequency - 1);
      again(main_, r);
    } else if (small_left == 0) {
      break;
    } else {
      main_left = 0;
      if (small_.empty()) break;
    }
  }
  return std::nullopt;
}

std::optional<std::uint64_t> S3Fifo::oldest() const {
  if (small_is_next()) return small_.front().since;
  return main_.empty() ? std::nullopt : std::optional(main_.front().since);
}

std::vector<S3Fifo::Resident> S3Fifo::next(std::size_t count) const {
  std::vector<Resident> residents;
  const auto add = [&](const Queue& queue, std::size_t most) {
    residents.insert(residents.end(), queue.begin(),
                     queue.begin() + static_cast<std::ptrdiff_t>(std::min(most, queue.size())));
  };
  add(small_, count / 2);
  add(main_, count - residents.size());
  return residents;
}

// As many ghosts as frames. An entry of the queue is stale when the map has a later serial.
void S3Fifo::remember(std::uint64_t page, std::size_t frames) {
  ghosts_[page] = ++serial_;
  ghost_queue_.emplace_back(page, serial_);
  while (ghost_queue_.size() > frames) {
    const auto [oldest, serial] = ghost_queue_.front();
    ghost_queue_.pop_front();
    const auto found = ghosts_.find(oldest);
    if (found != ghosts_.end() && found->second == serial) ghosts_.erase(found);
  }
}

void S3Fifo::rename(const std::function<std::uint64_t(std::uint64_t)>& renamed) {
  for (Queue* queue : {&small_, &main_}) {
    for (Resident& resident : *queue) resident.page = renamed(resident.page);
  }
  std::unordered_map<std::uint64_t, std::uint64_t> ghosts;
  for (const auto& [page, serial] : ghosts_) ghosts.emplace(renamed(page), serial);
  ghosts_ = std::move(ghosts);
  for (auto& [page, serial] : ghost_queue_) page = renamed(page);
}

}  // namespace perennial
