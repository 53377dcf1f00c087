// SPDX-License-Identifier: Apache-2.0
// The PEER layers of a model and the pools they read: they grow, freeze and commit as one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "perennial/core/participant.h"
#include "perennial/core/peer.h"
#include "perennial/core/pool.h"

namespace perennial {

// Several layers by name, each over a pool of its own or over one that others read too (tied
// experts, each layer with a query network and keys of its own). A generation of the model is one
// generation of every pool with a router for it in every layer, so all pools have equally many.
// Names are part of the draws, of the names of optimizer state, and of the stored format.
//
// A layer is used as a module by itself: forward, gradients, a SparseOptimizer a pool. What begins,
// ends, keeps and brings back generations is done here. Single-threaded.
class ExpertLayers : public Participant {
 public:
  // No layers yet, in memory or over `store` (may be null), which must outlive this. All pools
  // share one PageMemory(store, budget_bytes).
  explicit ExpertLayers(const storage::PageReader* store = nullptr, std::int64_t budget_bytes = 0);
  // Those that the store's current state has. Throws StorageError, DataError.
  static ExpertLayers load(const storage::PageReader& store, std::int64_t budget_bytes);

  // Adds a layer, over the pool of that name (empty: one named as the layer). The first layer of a
  // pool makes it; further ones agree with it in all options that say what its experts are and how
  // they are drawn. Throws InvalidOptions for those that differ and for names that cannot be, Error
  // once there are generations.
  std::shared_ptr<PeerImpl> add(const std::string& name, const PeerOptions& options,
                                const std::string& pool = {});

  // By name; get() throws Error for one that is not there.
  const std::map<std::string, std::shared_ptr<PeerImpl>>& layers() const { return layers_; }
  PeerImpl& get(const std::string& name) const;
  // In the order of their numbers.
  const std::vector<std::shared_ptr<Pool>>& pools() const { return pools_; }

  std::size_t generations() const;
  GenerationState state(std::uint32_t generation) const;
  std::optional<std::uint32_t> open_generation() const;
  // The newest generation that has trained in any pool, if any.
  std::optional<std::uint32_t> newest_trained() const;

  // As PeerImpl's, in every pool and layer. rows, cols: 0 as each layer's options say. What options
  // or arguments make impossible is refused before anything changes, and so is a freeze whose pages
  // cannot be read; after a failure of another kind (memory, a device) go back to the last commit.
  std::uint32_t grow(std::int64_t rows = 0, std::int64_t cols = 0);
  void grow_columns(std::int64_t cols);
  void unmask();
  bool has_masked() const;
  // Returns digest() of what froze.
  storage::Digest freeze();
  // Of a frozen generation: the shard's own where there is one pool, else XXH3-128 over the pools'
  // names and shard digests.
  storage::Digest digest(std::uint32_t generation) const;
  // True if pages and routers are what they were when they froze; false for an open generation.
  bool frozen_intact(std::uint32_t generation);
  bool frozen_intact();

  // For shard files: what a frozen generation from elsewhere is in one layer. Layers of one pool
  // bring the same experts. As PeerImpl::add_frozen() in all layers; returns the new number.
  struct FrozenLayer {
    ForeignGeneration experts;
    PeerImpl::RouterTensors router;
  };
  std::uint32_t add_frozen(const std::map<std::string, FrozenLayer>& content);

  // Of every layer and pool.
  void zero_grad();
  // Dense parameters that train, of all layers.
  std::vector<std::pair<std::string, torch::Tensor>> trainable();
  // As PeerImpl's.
  void require_budget() const;
  PagerCounters counters() const { return memory_->counters(); }

  // As PeerImpl's.
  void add_to_commit(storage::CommitRequest& request) override;
  void committed() override;
  void commit_failed() override;

 private:
  // The layers of a pool, by name; the first says how its experts are drawn.
  std::vector<PeerImpl*> readers(const Pool& pool) const;
  std::shared_ptr<Pool> pool_named(const std::string& name) const;
  storage::Digest router_digest(const Pool& pool, std::uint32_t generation) const;
  void require_layers() const;

  std::shared_ptr<PageMemory> memory_;
  std::vector<std::shared_ptr<Pool>> pools_;
  std::map<std::string, std::shared_ptr<PeerImpl>> layers_;
};

}  // namespace perennial
