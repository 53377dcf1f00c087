// SPDX-License-Identifier: Apache-2.0
// Asks every part of a stored model to take generations out.
#include "perennial/core/unlearn.h"

#include <algorithm>
#include <string>
#include <vector>

#include "perennial/core/gate.h"
#include "perennial/core/peer.h"

namespace perennial {

namespace {

// The generations of the model: those of any pool, since all of them grow as one.
std::vector<Generation> generations_in(const storage::PageReader& store) {
  const std::vector<std::uint32_t> pools = Pool::stored_pools(store);
  if (pools.empty()) throw Error("the store has no pool of experts, and no generations");
  return Pool::stored_generations(pools.front(), store);
}

}  // namespace

void drop_generations_from(const storage::PageReader& store, std::uint32_t keep,
                           storage::CommitRequest& request) {
  const std::size_t generations = generations_in(store).size();
  if (keep == 0 || keep >= generations) {
    throw Error("of " + std::to_string(generations) + " generations none can be dropped so that " +
                std::to_string(keep) + " are left");
  }
  for (const std::string& layer : PeerImpl::stored_layers(store)) {
    PeerImpl::drop_generations_from(store, layer, keep, request);
  }
  for (const std::uint32_t pool : Pool::stored_pools(store)) {
    Pool::drop_generations_from(store, pool, keep, request);
  }
  if (AnalyticGate::stored_in(store)) AnalyticGate::drop_generations_from(store, keep, request);
}

void drop_generation(const storage::PageReader& store, std::uint32_t generation,
                     storage::CommitRequest& request) {
  const std::vector<Generation> generations = generations_in(store);
  if (generation >= generations.size() ||
      generations[generation].state == GenerationState::unlearned) {
    throw Error("generation " + std::to_string(generation) + " does not exist or was unlearned");
  }
  for (const std::string& layer : PeerImpl::stored_layers(store)) {
    PeerImpl::drop_generation(store, layer, generation, request);
  }
  for (const std::uint32_t pool : Pool::stored_pools(store)) {
    Pool::drop_generation(store, pool, generation, request);
  }
  if (AnalyticGate::stored_in(store)) AnalyticGate::drop_generation(store, generation, request);
}

}  // namespace perennial
