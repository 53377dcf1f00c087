// SPDX-License-Identifier: Apache-2.0
// One state of a store, immutable: what the record of its commit says, with its page table.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend.h"
#include "catalog.h"
#include "record.h"
#include "state_table.h"

namespace perennial::storage {

struct State {
  StateTable table;
  CommitInfo info;  // commit 0: the empty store before its first commit
  StoreIdentity identity;
  Retention retention;
  Catalog catalog;
  std::uint64_t full_commit = 0;  // the newest commit with a full table at or before this one
};

using StatePtr = std::shared_ptr<const State>;

// "commit 7, /path/000012.sst"
std::string where(const Backend& backend, std::uint64_t commit);

// A record that is expected to be there; errors name its file. Adds its size to `bytes` if given.
Result<Record> read_record(const Backend& backend, std::uint64_t commit,
                           std::uint64_t* bytes = nullptr);

// The records that a state is made of: newest first, from `commit` back to one with a full table,
// or to the one after `known`.
Result<std::vector<Record>> read_chain(const Backend& backend, std::uint64_t commit,
                                       std::uint64_t known = 0);

// Builds the state of a commit and checks it against its digest.
Result<StatePtr> load_state(const Backend& backend, std::uint64_t commit);

// The state after `record`, whose parent state is `before`.
State next_state(const State& before, const Record& record);

}  // namespace perennial::storage
