// SPDX-License-Identifier: Apache-2.0
// What a memory for pages counted since it was made, for all its pools.
#pragma once

#include <cstdint>

namespace perennial {

struct PagerCounters {
  // Pages found in a frame, one a call that needs them; not counted where no page ever leaves its
  // frame (without a memory budget).
  std::uint64_t hits = 0;
  std::uint64_t initialised = 0;    // misses filled from a recipe
  std::uint64_t read = 0;           // misses filled from the store
  std::uint64_t read_bytes = 0;     // of these pages
  std::uint64_t unspilled = 0;      // misses filled from the spill file
  std::uint64_t prefetched = 0;     // of these three, loaded ahead of their use
  std::uint64_t prefetch_hits = 0;  // and in their frame when they were used
  std::uint64_t evicted = 0;
  std::uint64_t spilled = 0;           // pages written to the spill file
  std::uint64_t copied_on_write = 0;   // pages written to while a commit needed their bytes
  std::uint64_t waits = 0;             // calls that had to wait for a frame or for another's copy
  std::uint64_t wait_ns = 0;           // and how long, in all
  std::uint64_t dirty_bytes = 0;       // of pages changed since the last commit began
  std::uint64_t resident_bytes = 0;    // of all frames: weights, state, copies for a commit
  std::uint64_t peak_bytes = 0;        // the most that has been
  std::uint64_t spill_file_bytes = 0;  // in use now
  std::uint64_t spill_peak_bytes = 0;  // the largest that the file has been
};

}  // namespace perennial
