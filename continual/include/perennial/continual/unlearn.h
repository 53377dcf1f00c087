// SPDX-License-Identifier: Apache-2.0
// Exact unlearning of a generation.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "perennial/storage/page_store.h"

namespace perennial::continual {

struct UnlearnOptions {
  std::optional<std::uint32_t> generation = {};  // none: the newest
  bool cascade = false;                          // also what read the generation while it learnt
  std::string snapshot = {};                     // name of a snapshot to keep the result as
};

struct Unlearned {
  std::vector<std::uint32_t> generations;  // that are gone now, ascending
  // The run went back to before this experience (from 0), which it learns next when it goes on;
  // empty where the run stays where it is.
  std::optional<std::int64_t> experience;
  storage::CommitInfo commit;
  // Earlier commits that still have a generation that is gone, oldest first: to be dropped, and
  // their space reclaimed, where nothing of it may be left on the disk.
  std::vector<storage::CommitInfo> held_by;
};

// Takes from a store's current state what a generation of strategy grow_freeze, with isolated
// routing, has learnt, in one commit: a kill at any instant leaves the state before or after.
//
// The newest generation: the run goes back to where the experience began that opened it. Matrix,
// position, step count, gate statistics, strategies' memories, everything has the bits of a store
// that never learnt it, and so has the state digest. Going on learns that experience again.
//
// An older one: its experts, router and gate statistics go and the gate never names it again; what
// newer generations answer, given the generation, keeps its bits. Matrix and position stay, as
// facts of the run. Where newer generations read it while they learnt (a strategy beside
// grow_freeze replays its examples, or distils from it), this is refused; with `cascade` they go
// as well, and the run goes back to before it.
//
// Strategies' memories are those of the commit at which the experience began, which must still be
// in the store's history then. Cost: no page is read. Throws InvalidOptions for a request that
// cannot be met exactly, with what would; StorageError, DataError.
Unlearned unlearn(storage::PageStore& store, const UnlearnOptions& options);

}  // namespace perennial::continual
