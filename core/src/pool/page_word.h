// SPDX-License-Identifier: Apache-2.0
// A page's number in the cache, and the atomic word that says where its content is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "perennial/storage/page.h"
#include "perennial/storage/status.h"

namespace perennial {

// Both kinds, in the order of their ids.
inline constexpr std::array kPageKinds = {storage::PageKind::weights, storage::PageKind::state};
constexpr std::size_t kind_index(storage::PageKind kind) { return static_cast<std::size_t>(kind); }

// Of all kinds, regions and sources.
struct PageKey {
  storage::PageKind kind = storage::PageKind::weights;
  std::uint32_t region = 0;
  std::uint32_t page = 0;
  bool operator==(const PageKey&) const = default;

  constexpr std::uint64_t packed() const {
    return static_cast<std::uint64_t>(kind) << 63 | std::uint64_t{region} << 32 | page;
  }
  static constexpr PageKey of(std::uint64_t packed) {
    return {static_cast<storage::PageKind>(packed >> 63),
            static_cast<std::uint32_t>(packed >> 32) & 0x7fffffff,
            static_cast<std::uint32_t>(packed)};
  }
};

// Where a page's content is. `initial` means never written: its content is the recipe's (weights)
// or zero (optimizer state).
enum class PageState : std::uint8_t {
  initial,   // no frame, never written
  absent,    // no frame, the store has it
  spilled,   // no frame, differs from the store's version, in the spill file
  loading,   // in a frame that is being filled
  resident,  // in a frame, equal to what the recipe or the store gives
  dirty,     // in a frame, changed since the last commit began
  writing,   // in a frame, as it was when the commit in flight began
};

constexpr bool in_frame(PageState state) { return state >= PageState::resident; }
constexpr bool in_no_frame(PageState state) { return state < PageState::loading; }

// Frame (32 bits), pins (16), uses (2), flags, state (8).
namespace page_word {

inline constexpr std::uint64_t kFrame = 0xffffffff;
inline constexpr std::uint64_t kPin = std::uint64_t{1} << 32;
inline constexpr std::uint64_t kPins = std::uint64_t{0xffff} << 32;
inline constexpr int kFrequencyShift = 48;
inline constexpr std::uint64_t kFrequency = std::uint64_t{3} << kFrequencyShift;
inline constexpr std::uint64_t kAhead = std::uint64_t{1} << 50;       // named ahead, not yet used
inline constexpr std::uint64_t kPrefetched = std::uint64_t{1} << 51;  // and loaded for that
inline constexpr std::uint64_t kStored = std::uint64_t{1} << 52;      // the store has a version
inline constexpr int kStateShift = 56;
inline constexpr std::uint64_t kState = std::uint64_t{0xff} << kStateShift;

constexpr PageState state(std::uint64_t word) {
  return static_cast<PageState>(word >> kStateShift);
}
constexpr std::uint64_t of(PageState state) {
  return static_cast<std::uint64_t>(state) << kStateShift;
}
constexpr std::uint32_t frame(std::uint64_t word) { return static_cast<std::uint32_t>(word); }
constexpr std::uint64_t pins(std::uint64_t word) { return (word & kPins) >> 32; }
constexpr std::uint32_t frequency(std::uint64_t word) {
  return static_cast<std::uint32_t>((word & kFrequency) >> kFrequencyShift);
}

}  // namespace page_word

// A failure with the page it struck in front.
inline storage::Status about(const storage::PageId& id, const storage::Status& status) {
  return {status.code(), to_string(id) + ": " + status.message()};
}

}  // namespace perennial
