// SPDX-License-Identifier: Apache-2.0
// Which page leaves when a frame is needed: S3-FIFO.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

namespace perennial {

// No frame: no answer.
inline constexpr std::uint32_t kNoFrame = std::numeric_limits<std::uint32_t>::max();
// Where the count of uses of a page in a frame stops.
inline constexpr std::uint32_t kMaxFrequency = 3;

// What the order may ask about the pages that are in it.
class PageUse {
 public:
  virtual ~PageUse() = default;
  // False while somebody needs the page in its frame.
  virtual bool evictable(std::uint64_t page) = 0;
  // Uses since the page came in, from 0 to kMaxFrequency; they are counted down here.
  virtual std::uint32_t frequency(std::uint64_t page) = 0;
  virtual void set_frequency(std::uint64_t page, std::uint32_t frequency) = 0;
};

// The order in which pages leave (Yang et al., SOSP 2023): a small queue that new pages must
// survive by being used twice, a main queue with as many rounds as uses, and a ghost queue of pages
// that left the small one: a page that comes back while it is remembered goes straight to the main
// queue. A use of a page tells the order nothing: it reads the counts when it needs a victim, so
// that a hit touches one word. Single-threaded.
class S3Fifo {
 public:
  struct Resident {
    std::uint32_t frame = kNoFrame;
    std::uint64_t page = 0;
    std::uint64_t since = 0;  // when it came to the end of its queue
  };

  // A page came into a frame. `now` counts pages that came in, here and in other orders.
  void insert(std::uint32_t frame, std::uint64_t page, std::uint64_t now);
  // A victim that could not leave after all.
  void keep(const Resident& resident, std::uint64_t now);
  // Pages left their frames without being victims. O(frames).
  void remove_if(const std::function<bool(std::uint64_t)>& left);
  // Takes out the page that leaves next; nothing when none is evictable.
  std::optional<Resident> victim(PageUse& use, std::uint64_t now);
  // Since when the page that would be asked first has been in its queue; nothing without pages.
  std::optional<std::uint64_t> oldest() const;
  // About `count` that leave next unless they are used, next one first.
  std::vector<Resident> next(std::size_t count) const;
  // Pages have other names now.
  void rename(const std::function<std::uint64_t(std::uint64_t)>& renamed);

 private:
  using Queue = std::deque<Resident>;  // the front leaves first

  bool small_is_next() const;
  void remember(std::uint64_t page, std::size_t frames);

  Queue small_, main_;
  std::unordered_map<std::uint64_t, std::uint64_t> ghosts_;
  std::deque<std::pair<std::uint64_t, std::uint64_t>> ghost_queue_;
  std::uint64_t serial_ = 0;
};

}  // namespace perennial
