// SPDX-License-Identifier: Apache-2.0
// A strategy's share of a commit: entries "strategy/NAME".
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "perennial/continual/strategy.h"
#include "perennial/core/dense_entries.h"
#include "perennial/core/participant.h"
#include "perennial/storage/page_store.h"

namespace perennial::continual {

class StrategyState : public Participant {
 public:
  // Of this strategy.
  explicit StrategyState(std::shared_ptr<Strategy> strategy) : strategy_(std::move(strategy)) {}

  void add_to_commit(storage::CommitRequest& request) override;
  void committed() override { entries_.committed(); }
  void commit_failed() override { entries_.commit_failed(); }
  // Gives the strategy the state that the store holds; `device` is where the dense parameters are.
  // Throws StorageError, DataError.
  void load(const storage::PageReader& store, const at::Device& device);

 private:
  class Saver;
  class Loader;

  std::shared_ptr<Strategy> strategy_;
  DenseEntries entries_;
};

// Bytes of a strategy's state: memories, importances, copies of parameters.
std::int64_t state_bytes(Strategy& strategy);

}  // namespace perennial::continual
