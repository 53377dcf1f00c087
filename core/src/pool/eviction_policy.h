// SPDX-License-Identifier: Apache-2.0
// Which page leaves when a frame is needed: S3-FIFO, CLOCK and LRU behind one interface.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string_view>
#include <vector>

namespace perennial {

// No frame: no answer.
inline constexpr std::uint32_t kNoFrame = std::numeric_limits<std::uint32_t>::max();
// Where the count of uses of a page in a frame stops.
inline constexpr std::uint32_t kMaxFrequency = 3;

// What a policy may ask about the frames that were given to it.
class FrameUse {
 public:
  virtual ~FrameUse() = default;
  // False while somebody needs the page in its frame.
  virtual bool evictable(std::uint32_t frame) = 0;
  // Uses since the page came in, from 0 to kMaxFrequency; a policy may count them down.
  virtual std::uint32_t frequency(std::uint32_t frame) = 0;
  virtual void set_frequency(std::uint32_t frame, std::uint32_t frequency) = 0;
  // When the page was used last: larger is later.
  virtual std::uint64_t last_use(std::uint32_t frame) = 0;
};

// The order in which pages leave. A use of a page tells the policy nothing: it reads the counts
// when it needs a victim, so that a hit touches one word. Single-threaded.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  // A page came into a frame.
  virtual void insert(std::uint32_t frame, std::uint64_t page) = 0;
  // A victim that could not leave after all.
  virtual void keep(std::uint32_t frame, std::uint64_t page) = 0;
  // A frame lost its page without being a victim. O(frames).
  virtual void remove(std::uint32_t frame) = 0;
  // Takes the frame out whose page leaves next; kNoFrame when none is evictable.
  virtual std::uint32_t victim(FrameUse& use) = 0;
  // About `count` frames that leave next unless they are used, next one first.
  virtual std::vector<std::uint32_t> next(std::size_t count) const = 0;
};

enum class PolicyKind : std::uint8_t { s3_fifo, clock, lru };
std::string_view policy_name(PolicyKind kind);

std::unique_ptr<EvictionPolicy> make_policy(PolicyKind kind);

}  // namespace perennial
