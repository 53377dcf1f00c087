// SPDX-License-Identifier: Apache-2.0
// Frames for pages that come in: whose page leaves, and where changed ones go.
#pragma once

#include <cstdint>
#include <span>

#include "pool/cache_state.h"

namespace perennial {

// Who asks for a frame. `demand`: one who needs it at once; may spill, and takes at last also from
// pages that were named ahead. `prefetch`: may spill. `clean`: nothing that costs input or output.
enum class Want : std::uint8_t { demand, prefetch, clean };

// A frame of a size: a free one, a new one within the budget, or that of a page that leaves.
// kNoFrame when all are in use. May let go of the mutex meanwhile, to spill.
storage::Result<std::uint32_t> acquire(CacheState& cache, std::uint32_t size, Want want)
    PERENNIAL_REQUIRES(cache.turns.mutex);

// Writes bytes that stay as they are to the spill file, without the mutex.
storage::Result<ChangedPage::Slot> write_slot(CacheState& cache, const storage::PageId& id,
                                              std::span<const std::byte> bytes)
    PERENNIAL_REQUIRES(cache.turns.mutex);

}  // namespace perennial
