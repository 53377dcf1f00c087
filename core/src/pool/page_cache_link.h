// SPDX-License-Identifier: Apache-2.0
// What payload functions hold of a cache: they may be called, or destroyed, after it is gone.
#pragma once

#include <mutex>
#include <vector>

#include "pool/page_cache.h"

namespace perennial {

struct PageCache::Link {
  std::mutex mutex;  // over a call, so that the cache's end waits for it
  PageCache* cache = nullptr;
  std::vector<std::byte> buffer;  // the last payload
};

}  // namespace perennial
