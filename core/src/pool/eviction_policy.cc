// SPDX-License-Identifier: Apache-2.0
// The three policies.
#include "pool/eviction_policy.h"

#include <algorithm>
#include <deque>
#include <unordered_map>
#include <utility>

namespace perennial {

namespace {

struct Resident {
  std::uint32_t frame;
  std::uint64_t page;
};

using Queue = std::deque<Resident>;  // the front leaves first

void erase_frame(Queue& queue, std::uint32_t frame) {
  std::erase_if(queue, [&](const Resident& r) { return r.frame == frame; });
}

void append_front(const Queue& queue, std::size_t count, std::vector<std::uint32_t>& out) {
  for (std::size_t i = 0; i < std::min(count, queue.size()); ++i) out.push_back(queue[i].frame);
}

// First in, first out, with another round for a page that was used since the last one.
class Clock : public EvictionPolicy {
 public:
  void insert(std::uint32_t frame, std::uint64_t page) override { queue_.push_back({frame, page}); }
  void keep(std::uint32_t frame, std::uint64_t page) override { queue_.push_back({frame, page}); }
  void remove(std::uint32_t frame) override { erase_frame(queue_, frame); }
  std::uint32_t victim(FrameUse& use) override {
    for (std::size_t left = 2 * queue_.size(); left > 0; --left) {
      const Resident r = queue_.front();
      queue_.pop_front();
      if (use.evictable(r.frame)) {
        if (use.frequency(r.frame) == 0) return r.frame;
        use.set_frequency(r.frame, 0);
      }
      queue_.push_back(r);
    }
    return kNoFrame;
  }
  std::vector<std::uint32_t> next(std::size_t count) const override {
    std::vector<std::uint32_t> frames;
    append_front(queue_, count, frames);
    return frames;
  }

 private:
  Queue queue_;
};

// Least recently used. The heap has the use that was known when a page was last looked at; one that
// turns out to be used later goes back in with the truth.
class Lru : public EvictionPolicy {
 public:
  void insert(std::uint32_t frame, std::uint64_t page) override { push({0, frame, page}); }
  void keep(std::uint32_t frame, std::uint64_t page) override { push({0, frame, page}); }
  void remove(std::uint32_t frame) override {
    std::erase_if(heap_, [&](const Known& k) { return k.frame == frame; });
    std::make_heap(heap_.begin(), heap_.end());
  }
  std::uint32_t victim(FrameUse& use) override {
    std::vector<Known> held;
    std::uint32_t found = kNoFrame;
    while (!heap_.empty() && found == kNoFrame) {
      std::pop_heap(heap_.begin(), heap_.end());
      Known known = heap_.back();
      heap_.pop_back();
      const std::uint64_t last = use.last_use(known.frame);
      if (last != known.last) {
        known.last = last;
        push(known);
      } else if (use.evictable(known.frame)) {
        found = known.frame;
      } else {
        held.push_back(known);
      }
    }
    for (const Known& known : held) push(known);
    return found;
  }
  std::vector<std::uint32_t> next(std::size_t count) const override {
    std::vector<Known> known(heap_);
    count = std::min(count, known.size());
    std::partial_sort(known.begin(), known.begin() + static_cast<std::ptrdiff_t>(count),
                      known.end(), [](const Known& a, const Known& b) { return b < a; });
    std::vector<std::uint32_t> frames;
    for (std::size_t i = 0; i < count; ++i) frames.push_back(known[i].frame);
    return frames;
  }

 private:
  struct Known {
    std::uint64_t last;
    std::uint32_t frame;
    std::uint64_t page;
    bool operator<(const Known& other) const {  // the heap's top is the least
      return std::pair(last, frame) > std::pair(other.last, other.frame);
    }
  };
  void push(Known known) {
    heap_.push_back(known);
    std::push_heap(heap_.begin(), heap_.end());
  }
  std::vector<Known> heap_;
};

// S3-FIFO (Yang et al., SOSP 2023): a small queue that new pages must survive by being used twice,
// a main queue with as many rounds as uses, and a ghost queue of pages that left the small one: a
// page that comes back while it is remembered goes straight to the main queue.
class S3Fifo : public EvictionPolicy {
 public:
  void insert(std::uint32_t frame, std::uint64_t page) override {
    const bool remembered = ghosts_.erase(page) > 0;
    (remembered ? main_ : small_).push_back({frame, page});
  }
  void keep(std::uint32_t frame, std::uint64_t page) override { main_.push_back({frame, page}); }
  void remove(std::uint32_t frame) override {
    erase_frame(small_, frame);
    erase_frame(main_, frame);
  }
  std::uint32_t victim(FrameUse& use) override {
    // Each round either promotes, counts down, or meets a page that must stay.
    std::size_t small_left = small_.size();
    std::size_t main_left = (kMaxFrequency + 1) * (main_.size() + small_.size());
    while (small_left > 0 || main_left > 0) {
      const std::size_t frames = small_.size() + main_.size();
      const bool from_small =
          small_left > 0 && !small_.empty() &&
          (small_.size() * kSmallShare >= frames || main_left == 0 || main_.empty());
      if (from_small) {
        --small_left;
        const Resident r = take(small_);
        if (!use.evictable(r.frame)) {
          small_.push_back(r);
        } else if (use.frequency(r.frame) >= kPromote) {
          use.set_frequency(r.frame, 0);
          main_.push_back(r);
        } else {
          remember(r.page, frames);
          return r.frame;
        }
      } else if (main_left > 0 && !main_.empty()) {
        --main_left;
        const Resident r = take(main_);
        const std::uint32_t frequency = use.evictable(r.frame) ? use.frequency(r.frame) : 1;
        if (frequency == 0) return r.frame;
        if (use.evictable(r.frame)) use.set_frequency(r.frame, frequency - 1);
        main_.push_back(r);
      } else if (small_left == 0) {
        break;
      } else {
        main_left = 0;
        if (small_.empty()) break;
      }
    }
    return kNoFrame;
  }
  std::vector<std::uint32_t> next(std::size_t count) const override {
    std::vector<std::uint32_t> frames;
    append_front(small_, count / 2, frames);
    append_front(main_, count - frames.size(), frames);
    return frames;
  }

 private:
  static constexpr std::size_t kSmallShare = 10;  // the small queue has a tenth of the frames
  static constexpr std::uint32_t kPromote = 2;    // uses that lead from small to main

  static Resident take(Queue& queue) {
    const Resident r = queue.front();
    queue.pop_front();
    return r;
  }
  // As many ghosts as frames. An entry of the queue is stale when the map has a later serial.
  void remember(std::uint64_t page, std::size_t frames) {
    ghosts_[page] = ++serial_;
    ghost_queue_.emplace_back(page, serial_);
    while (ghost_queue_.size() > frames) {
      const auto [oldest, serial] = ghost_queue_.front();
      ghost_queue_.pop_front();
      const auto found = ghosts_.find(oldest);
      if (found != ghosts_.end() && found->second == serial) ghosts_.erase(found);
    }
  }

  Queue small_, main_;
  std::unordered_map<std::uint64_t, std::uint64_t> ghosts_;
  std::deque<std::pair<std::uint64_t, std::uint64_t>> ghost_queue_;
  std::uint64_t serial_ = 0;
};

}  // namespace

std::string_view policy_name(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::clock:
      return "clock";
    case PolicyKind::lru:
      return "lru";
    default:
      return "s3_fifo";
  }
}

std::unique_ptr<EvictionPolicy> make_policy(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::clock:
      return std::make_unique<Clock>();
    case PolicyKind::lru:
      return std::make_unique<Lru>();
    default:
      return std::make_unique<S3Fifo>();
  }
}

}  // namespace perennial
