// SPDX-License-Identifier: Apache-2.0
// One lifecycle for the layers of a model.
#include "perennial/core/expert_layers.h"

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <set>

namespace perennial {

namespace json = boost::json;

namespace {

// Options that belong to a pool, and those that its experts are drawn by.
constexpr const char* kOfPool[] = {
    "d_in", "d_out",   "glu",     "expert_width", "dtype",        "page_bytes", "rows",
    "cols", "u_scale", "v_scale", "seed",         "distribution", "routing"};

void require_alike(const std::string& name, const PeerOptions& options, const PeerImpl& other) {
  const json::object ours = to_json(options), theirs = to_json(other.options());
  for (const char* field : kOfPool) {
    if (ours.at(field) == theirs.at(field)) continue;
    throw InvalidOptions("layer '" + name + "' has " + field + " " +
                         json::serialize(ours.at(field)) + "; layer '" + other.name() +
                         "', which reads the same pool, has " + json::serialize(theirs.at(field)));
  }
}

// What routes to a generation of a pool: its layer's own digest where there is one layer.
template <class DigestOf>
storage::Digest combined(const std::vector<PeerImpl*>& layers, const DigestOf& digest_of) {
  if (layers.size() == 1) return digest_of(*layers.front());
  storage::Hasher hasher;
  for (const PeerImpl* layer : layers) hasher.update(layer->name()).update(digest_of(*layer));
  return hasher.finish();
}

}  // namespace

ExpertLayers::ExpertLayers(const storage::PageReader* store, std::int64_t budget_bytes)
    : memory_(std::make_shared<PageMemory>(store, budget_bytes)) {}

ExpertLayers ExpertLayers::load(const storage::PageReader& store, std::int64_t budget_bytes) {
  ExpertLayers all(&store, budget_bytes);
  std::map<std::uint32_t, std::shared_ptr<Pool>> pools;
  const std::vector<storage::PageId> listed = store.pages();
  for (const std::uint32_t id : Pool::stored_pools(store)) {
    pools[id] = Pool::load(id, all.memory_, listed);
    all.pools_.push_back(pools[id]);
  }
  for (const std::string& name : PeerImpl::stored_layers(store)) {
    const std::uint32_t id = PeerImpl::stored_pool(store, name);
    if (!pools.contains(id)) {
      throw DataError("layer '" + name + "' reads pool " + std::to_string(id) +
                      ", which the store has not");
    }
    all.layers_[name] = PeerImpl::load(store, name, pools[id]);
  }
  for (const auto& pool : all.pools_) {
    const std::vector<Generation>&ours = pool->generations(),
          &theirs = all.pools_.front()->generations();
    const bool alike = std::equal(ours.begin(), ours.end(), theirs.begin(), theirs.end(),
                                  [](const auto& a, const auto& b) { return a.state == b.state; });
    if (!alike || all.readers(*pool).empty()) {
      throw DataError("pool '" + pool->name() + "' has " +
                      (alike ? "no layer"
                             : "other generations than pool '" + all.pools_.front()->name() + "'"));
    }
  }
  return all;
}

std::shared_ptr<Pool> ExpertLayers::pool_named(const std::string& name) const {
  const auto found = std::find_if(pools_.begin(), pools_.end(),
                                  [&](const auto& pool) { return pool->name() == name; });
  return found == pools_.end() ? nullptr : *found;
}

std::vector<PeerImpl*> ExpertLayers::readers(const Pool& pool) const {
  std::vector<PeerImpl*> readers;
  for (const auto& [name, layer] : layers_) {
    if (&layer->pool() == &pool) readers.push_back(layer.get());
  }
  return readers;
}

std::shared_ptr<PeerImpl> ExpertLayers::add(const std::string& name, const PeerOptions& options,
                                            const std::string& pool_name) {
  require_name("layer", name);
  if (generations() > 0) {
    throw Error("layer '" + name + "' comes too late: the model has generations already");
  }
  if (layers_.contains(name)) throw InvalidOptions("there is a layer '" + name + "' already");
  options.validate();
  if (memory_->store() != nullptr) PeerImpl::require_new(*memory_->store(), name);
  std::shared_ptr<Pool> pool = pool_named(pool_name.empty() ? name : pool_name);
  const bool made = pool == nullptr;
  if (made) {
    pool = std::make_shared<Pool>(static_cast<std::uint32_t>(pools_.size()), options.pool(),
                                  memory_, pool_name.empty() ? name : pool_name);
  } else {
    require_alike(name, options, *readers(*pool).front());
  }
  auto layer = std::make_shared<PeerImpl>(options, pool, name);
  if (made) pools_.push_back(std::move(pool));
  layers_[name] = layer;
  return layer;
}

PeerImpl& ExpertLayers::get(const std::string& name) const {
  const auto found = layers_.find(name);
  if (found == layers_.end()) throw Error("there is no layer '" + name + "'");
  return *found->second;
}

void ExpertLayers::require_layers() const {
  if (layers_.empty()) throw Error("the model has no PEER layer, and no generations");
}

std::size_t ExpertLayers::generations() const {
  return pools_.empty() ? 0 : pools_.front()->generations().size();
}

GenerationState ExpertLayers::state(std::uint32_t generation) const {
  require_layers();
  return pools_.front()->generation(generation).state;
}

std::optional<std::uint32_t> ExpertLayers::open_generation() const {
  return pools_.empty() ? std::nullopt : pools_.front()->open_generation();
}

std::optional<std::uint32_t> ExpertLayers::newest_trained() const {
  std::optional<std::uint32_t> newest;
  for (const auto& pool : pools_) newest = std::max(newest, pool->newest_trained());
  return newest;
}

std::uint32_t ExpertLayers::grow(std::int64_t rows, std::int64_t cols) {
  require_layers();
  struct Wanted {
    Pool* pool;
    std::uint32_t rows, cols;
    Recipe recipe;
  };
  std::vector<Wanted> wanted;
  for (const auto& pool : pools_) {
    for (const PeerImpl* layer : readers(*pool)) {
      PeerOptions options = layer->options();
      if (rows != 0) options.rows = rows;
      if (cols != 0) options.cols = cols;
      options.validate();
      if (layer != readers(*pool).front()) continue;
      wanted.push_back({pool.get(), static_cast<std::uint32_t>(options.rows),
                        static_cast<std::uint32_t>(options.cols), layer->recipe()});
    }
    const Wanted& last = wanted.back();
    (void)pool->next_generation(last.rows, last.cols, last.recipe);
  }
  for (const Wanted& grown : wanted) grown.pool->grow(grown.rows, grown.cols, grown.recipe);
  for (const auto& [name, layer] : layers_) layer->follow_pool();
  return pools_.front()->generations().back().index;
}

void ExpertLayers::grow_columns(std::int64_t cols) {
  require_layers();
  if (cols < 1 || cols > 4294967295) {
    throw InvalidOptions("cannot append " + std::to_string(cols) + " columns");
  }
  for (const auto& pool : pools_) pool->require_columns(static_cast<std::uint32_t>(cols));
  for (const auto& pool : pools_) pool->grow_columns(static_cast<std::uint32_t>(cols));
  for (const auto& [name, layer] : layers_) layer->follow_pool();
}

void ExpertLayers::unmask() {
  for (const auto& [name, layer] : layers_) layer->unmask();
}

bool ExpertLayers::has_masked() const {
  return std::any_of(layers_.begin(), layers_.end(),
                     [](const auto& item) { return item.second->has_masked(); });
}

storage::Digest ExpertLayers::router_digest(const Pool& pool, std::uint32_t generation) const {
  return combined(readers(pool),
                  [generation](const PeerImpl& layer) { return layer.router_digest(generation); });
}

storage::Digest ExpertLayers::freeze() {
  require_layers();
  for (const auto& [name, layer] : layers_) layer->require_unmasked();
  const std::uint32_t generation = *open_generation();
  // What may fail comes first: reading pages.
  std::vector<std::vector<WrittenPage>> written;
  for (const auto& pool : pools_) written.push_back(pool->written_pages(generation));
  for (const auto& [name, layer] : layers_) (void)layer->close_router();
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    pools_[i]->freeze(router_digest(*pools_[i], generation), written[i]);
  }
  return digest(generation);
}

storage::Digest ExpertLayers::digest(std::uint32_t generation) const {
  require_layers();
  if (state(generation) != GenerationState::frozen) {
    throw Error("generation " + std::to_string(generation) + " is " +
                std::string(enum_name(state(generation))) + "; only a frozen one has a digest");
  }
  if (pools_.size() == 1) return pools_.front()->generation(generation).digest;
  std::map<std::string, storage::Digest> shards;
  for (const auto& pool : pools_) shards[pool->name()] = pool->generation(generation).digest;
  storage::Hasher hasher;
  for (const auto& [name, shard] : shards) hasher.update(name).update(shard);
  return hasher.finish();
}

bool ExpertLayers::frozen_intact(std::uint32_t generation) {
  return state(generation) == GenerationState::frozen &&
         std::all_of(pools_.begin(), pools_.end(), [&](const auto& pool) {
           const Generation& g = pool->generation(generation);
           return router_digest(*pool, generation) == g.router_digest &&
                  pool->shard_digest(generation) == g.digest;
         });
}

bool ExpertLayers::frozen_intact() {
  for (std::uint32_t g = 0; g < generations(); ++g) {
    if (state(g) == GenerationState::frozen && !frozen_intact(g)) return false;
  }
  return true;
}

std::uint32_t ExpertLayers::add_frozen(const std::map<std::string, FrozenLayer>& content) {
  require_layers();
  std::map<std::string, std::shared_ptr<Router>> routers;
  for (const auto& [name, layer] : layers_) {
    const auto found = content.find(name);
    if (found == content.end()) throw DataError("there is nothing for layer '" + name + "'");
    const ForeignGeneration& experts = found->second.experts;
    routers[name] = layer->frozen_router(
        layer->pool().next_generation(experts.rows, experts.cols, experts.recipe),
        found->second.router);
  }
  const auto generation = static_cast<std::uint32_t>(generations());
  std::size_t added = 0;
  try {
    for (const auto& pool : pools_) {
      const std::vector<PeerImpl*> layers = readers(*pool);
      const auto digest_of = [&](const PeerImpl& layer) {
        return layer.digest_of(*routers.at(layer.name()), generation);
      };
      pool->add_frozen(content.at(layers.front()->name()).experts, combined(layers, digest_of));
      ++added;
    }
  } catch (...) {
    while (added-- > 0) pools_[added]->remove_added();
    throw;
  }
  for (auto& [name, layer] : layers_) layer->append_router(std::move(routers.at(name)));
  return generation;
}

std::vector<std::pair<std::string, torch::Tensor>> ExpertLayers::trainable() {
  std::vector<std::pair<std::string, torch::Tensor>> all;
  for (const auto& [name, layer] : layers_) {
    for (auto& item : layer->trainable()) all.push_back(std::move(item));
  }
  return all;
}

void ExpertLayers::require_budget() const {
  for (const auto& [name, layer] : layers_) layer->require_budget();
}

void ExpertLayers::zero_grad() {
  for (const auto& [name, layer] : layers_) layer->zero_grad();
}

void ExpertLayers::add_to_commit(storage::CommitRequest& request) {
  for (const auto& [name, layer] : layers_) layer->require_absent(request);
  memory_->add_to_commit(request);  // first: it refuses a second commit beside one in flight
  for (const auto& [name, layer] : layers_) layer->offer_layer(request);
  for (const auto& pool : pools_) pool->add_to_commit(request);
}

void ExpertLayers::committed() {
  for (const auto& [name, layer] : layers_) layer->entries_.committed();
  memory_->committed();
  for (const auto& pool : pools_) pool->committed();
}

void ExpertLayers::commit_failed() {
  for (const auto& [name, layer] : layers_) layer->entries_.commit_failed();
  memory_->commit_failed();
  for (const auto& pool : pools_) pool->commit_failed();
}

}  // namespace perennial
