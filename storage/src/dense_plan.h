// SPDX-License-Identifier: Apache-2.0
// DensePlan: the dense entries of a commit, cut and hashed, before anything is written.
#pragma once

#include <cstdint>
#include <map>

#include "backend.h"
#include "perennial/storage/dense_payload.h"
#include "state.h"

namespace perennial::storage {

struct DensePlan {
  DenseTable table;  // after the commit
  // What the current state has not, in the order of keys: views of what the request's payloads
  // hold.
  std::map<Digest, Pieces> new_chunks;
  std::uint64_t new_bytes = 0;
};

// Calls the payload functions of the request's dense entries, once each, in the order of names. A
// failure of one names its entry.
Result<DensePlan> plan_dense(const CommitRequest& request, const State& before);

// Adds the new chunks to the commit that was begun in the backend.
Status write_chunks(Backend& backend, const DensePlan& plan, std::uint64_t commit);

}  // namespace perennial::storage
