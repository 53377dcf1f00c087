// SPDX-License-Identifier: Apache-2.0
// The PEER module: its generations begin, widen and end.
#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/option_digest.h"
#include "nn/router.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/peer.h"
#include "pool/expert_place.h"
#include "pool/pager.h"

namespace perennial {

namespace json = boost::json;

const Generation& PeerImpl::grow(std::int64_t rows, std::int64_t cols) {
  PeerOptions wanted = options_;
  if (rows != 0) wanted.rows = rows;
  if (cols != 0) wanted.cols = cols;
  wanted.validate();
  require_alone("grow");
  pool_->grow(static_cast<std::uint32_t>(wanted.rows), static_cast<std::uint32_t>(wanted.cols),
              recipe());
  follow_pool();
  return pool_->generations().back();
}

Recipe PeerImpl::recipe() const {
  Recipe recipe;
  recipe.distribution = options_.distribution;
  recipe.seed = seed_for(options_.seed, pool_->name());
  const auto or_default = [](double scale, std::int64_t width) {
    return scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(width));
  };
  recipe.u_scale = or_default(options_.u_scale, options_.d_in);
  recipe.v_scale = or_default(options_.v_scale, options_.d_out);
  return recipe;
}

void PeerImpl::follow_pool() {
  const Generation& newest = pool_->generations().back();
  const bool isolated = options_.routing == Routing::isolated;
  const bool first = routers_.empty();
  if (first || (isolated && routers_.size() == newest.index)) {
    add_router(new_router(static_cast<std::uint32_t>(routers_.size())));
  }
  Router& router = *routers_.back();
  if (router.row_blocks.empty() || router.row_blocks.back().generation != newest.index) {
    router.add_rows(newest, first || isolated);
  }
  router.add_columns(newest.cols);
  place_routers();
}

void PeerImpl::grow_columns(std::int64_t cols) {
  if (cols < 1 || cols > 4294967295) {
    throw InvalidOptions("cannot append " + std::to_string(cols) + " columns");
  }
  require_alone("grow");
  pool_->grow_columns(static_cast<std::uint32_t>(cols));
  follow_pool();
}

void PeerImpl::hold_statistics() {
  for (const auto& router : routers_) {
    if (router != nullptr) router->statistics_held = true;
  }
}

void PeerImpl::keys_changed() {
  for (const auto& router : routers_) {
    if (router != nullptr) router->keys_changed();
  }
}

void PeerImpl::unmask() {
  const std::optional<std::uint32_t> open = pool_->open_generation();
  for (const auto& router : routers_) {
    if (router == routers_.back()) {
      router->unmask(open ? pool_->generation(*open).cols : 0);
    } else if (router != nullptr) {
      router->unmask(0);
    }
  }
}

bool PeerImpl::has_masked() const {
  const std::optional<std::uint32_t> open = pool_->open_generation();
  if (routers_.empty()) return false;
  return routers_.back()->has_masked() ||
         (open && routers_.back()->row_blocks.back().cols != pool_->generation(*open).cols);
}

storage::Digest PeerImpl::digest_of(const Router& router, std::uint32_t generation) const {
  storage::Hasher hasher;
  hasher.update(json::serialize(digested_options(to_json(options_))));
  const auto add = [&](std::string_view name, const torch::Tensor& tensor) {
    hasher.update(name).update(std::span<const std::byte>(bytes_from(tensor)));
  };
  if (options_.routing == Routing::shared) {
    add("row_keys", router.row_blocks[generation].keys);
  } else {
    for (const auto& [name, tensor] : router.tensors()) add(name, tensor);
  }
  return hasher.finish();
}

storage::Digest PeerImpl::router_digest(std::uint32_t generation) const {
  return digest_of(router_of(generation), generation);
}

storage::Digest PeerImpl::freeze() {
  require_alone("freeze");
  require_unmasked();
  return pool_->freeze(close_router());
}

void PeerImpl::require_unmasked() const {
  const std::optional<std::uint32_t> open = pool_->open_generation();
  if (!open) throw Error("no generation is open: there is nothing to freeze");
  if (routers_.back()->row_blocks.back().cols != pool_->generation(*open).cols) {
    throw Error("generation " + std::to_string(*open) +
                " has masked columns, which freezing would lock away; call unmask() first");
  }
}

storage::Digest PeerImpl::close_router() {
  if (options_.routing == Routing::isolated) {
    routers_.back()->fold_and_freeze();
  } else {
    routers_.back()->freeze_rows();
  }
  return router_digest(pool_->generations().back().index);
}

bool PeerImpl::frozen_intact() {
  const std::vector<Generation>& generations = pool_->generations();
  return std::all_of(generations.begin(), generations.end(), [&](const Generation& generation) {
    return generation.state != GenerationState::frozen || frozen_intact(generation.index);
  });
}

bool PeerImpl::frozen_intact(std::uint32_t index) {
  require_alone("check");
  const Generation& generation = pool_->generation(index);
  return generation.state == GenerationState::frozen &&
         router_digest(index) == generation.router_digest &&
         pool_->shard_digest(index) == generation.digest;
}

std::vector<std::pair<std::string, torch::Tensor>> PeerImpl::trainable() {
  if (routers_.empty()) return {};
  auto tensors = routers_.back()->trainable();
  if (name_ != kDefaultName) {
    for (auto& [name, tensor] : tensors) name = name_ + "/" + name;
  }
  return tensors;
}

void PeerImpl::require_budget() const {
  pool_->pager().require_slots(options_.heads * options_.top_k);
  pool_->where().follow();
}

}  // namespace perennial
