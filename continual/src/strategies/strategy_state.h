// SPDX-License-Identifier: Apache-2.0
// A strategy's share of a commit: entries "strategy/NAME", offered again only when they changed.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <string>

#include "perennial/continual/strategy.h"
#include "perennial/storage/page_store.h"

namespace perennial::continual {

// Cost of a commit: the bytes of what changed since the last one.
class StrategyState {
 public:
  // Adds what changed, and removes entries of what is undefined now.
  void add_to_commit(Strategy& strategy, storage::CommitRequest& request);
  // The request of the last add_to_commit() was committed; when it was not, do nothing.
  void committed();
  // Gives the strategy the state that the store holds; `device` is where the dense parameters are.
  // Throws StorageError, DataError.
  void load(Strategy& strategy, const storage::PageReader& store, const at::Device& device);

 private:
  // A tensor as it was offered: the alias keeps its identity from being reused.
  struct Seen {
    torch::Tensor tensor;
    std::int64_t version = 0;
    std::int64_t integer = 0;
  };
  class Saver;
  class Loader;

  std::map<std::string, Seen> stored_;
  std::map<std::string, Seen> offered_;
};

// Bytes of a strategy's state: memories, importances, copies of parameters.
std::int64_t state_bytes(Strategy& strategy);

}  // namespace perennial::continual
