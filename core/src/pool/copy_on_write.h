// SPDX-License-Identifier: Apache-2.0
// Pages that are written to while a commit needs their bytes.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "pool/cache_state.h"

namespace perennial {

struct CacheLink {
  std::mutex mutex;  // of what follows; held over a call, so that the cache's end waits for it
  CacheState* cache = nullptr;
  std::vector<std::byte> buffer;  // the last payload
};

// Sees to it that a commit keeps the bytes of a page that is about to change. False: the mutex was
// free meanwhile, look again.
storage::Result<bool> detach(CacheState& cache, ChangedPage& changed, PageKey page)
    PERENNIAL_REQUIRES(cache.turns.mutex);

// Adds frames of each size, `wanted` at most, for such copies: in the background, and touched once,
// so that no writer meets the kernel's zeroing.
void prepare_shadows(CacheState& cache, const std::vector<std::uint32_t>& wanted)
    PERENNIAL_REQUIRES(cache.turns.mutex);

// Gives back what an entry of the epoch holds of its own.
void release_source(CacheState& cache, Epoch::Entry& entry) PERENNIAL_REQUIRES(cache.turns.mutex);

// The bytes of an epoch's page, wherever they are, in `buffer`; they are let go of then.
storage::Result<std::span<const std::byte>> payload(CacheState& cache, std::uint64_t epoch,
                                                    std::uint32_t entry,
                                                    std::vector<std::byte>& buffer)
    PERENNIAL_EXCLUDES(cache.turns.mutex);

}  // namespace perennial
