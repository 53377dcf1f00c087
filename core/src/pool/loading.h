// SPDX-License-Identifier: Apache-2.0
// Filling frames: from the store, the spill file or the recipe.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "pool/cache_state.h"

namespace perennial {

// A page on its way into a frame.
struct Load {
  PageKey page;
  std::uint32_t frame = kNoFrame;
  PageState from = PageState::initial;
  std::span<std::byte> bytes;
  const storage::SpillFile* spill = nullptr;  // where a slot is
  std::optional<ChangedPage::Slot> slot;
  std::size_t item = 0;  // of the caller's pin set
  storage::Status status;
};

// The page is being filled from now on, in a frame that was acquired for it.
void start_load(CacheState& cache, PageKey page, std::uint32_t frame, std::uint64_t pins,
                Load& load) PERENNIAL_REQUIRES(cache.turns.mutex);
// Fills frames with many threads, this one among them, and waits for all. A page whose load failed
// is as it was before, and its frame is free.
void run_loads(CacheState& cache, std::vector<Load>& loads) PERENNIAL_EXCLUDES(cache.turns.mutex);

// The pages that background.ahead names, one after another, while nobody waits for anything: the
// work of a job that was begun.
void load_ahead(CacheState& cache) PERENNIAL_EXCLUDES(cache.turns.mutex);

}  // namespace perennial
