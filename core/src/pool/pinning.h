// SPDX-License-Identifier: Apache-2.0
// One call of PageCache::pin.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pool/cache_state.h"
#include "pool/loading.h"

namespace perennial {

// Hits by one atomic word, misses in the order of the groups; whoever finds no frame lets go of
// everything and takes his turn. The set is filled, or released on errors.
class Pinning {
 public:
  Pinning(CacheState& cache, const PinRequest& request, PinSet& set)
      : cache_(cache), request_(request), set_(set), writes_(request.use == PinUse::write) {}

  // How many groups are pinned.
  storage::Result<std::size_t> run() PERENNIAL_EXCLUDES(cache_.turns.mutex);

 private:
  bool all_in_frames() const;
  bool write_dirty();
  storage::Result<std::size_t> take_turns() PERENNIAL_EXCLUDES(cache_.turns.mutex);
  storage::Result<std::size_t> attempt(bool own_turn) PERENNIAL_EXCLUDES(cache_.turns.mutex);
  bool pin_hits(std::vector<std::size_t>& missing);
  bool hit(PageKey page, PinUse use, std::uint64_t& prefetch_hits);
  void cut(bool own_turn) PERENNIAL_EXCLUDES(cache_.turns.mutex);
  storage::Result<std::vector<std::size_t>> load(const std::vector<std::size_t>& missing)
      PERENNIAL_EXCLUDES(cache_.turns.mutex);
  storage::Result<bool> begin_load(std::size_t item, std::vector<Load>& loads)
      PERENNIAL_REQUIRES(cache_.turns.mutex);
  void give_up_later_groups(std::size_t than) PERENNIAL_REQUIRES(cache_.turns.mutex);
  storage::Status mark_written() PERENNIAL_EXCLUDES(cache_.turns.mutex);

  CacheState& cache_;
  const PinRequest& request_;
  PinSet& set_;
  const bool writes_;
  std::size_t groups_ = 0;  // of the present attempt, that still may fit
};

}  // namespace perennial
