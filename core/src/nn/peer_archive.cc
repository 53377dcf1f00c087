// SPDX-License-Identifier: Apache-2.0
// The PEER module in a torch archive: routers as submodules, then the records that a store would
// have of layer and pool, and the pages that are not initial.
#include <ATen/ops/empty.h>
#include <torch/serialize/archive.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <cstring>
#include <string>
#include <string_view>
#include <system_error>

#include "nn/record_names.h"
#include "nn/router.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/peer.h"
#include "perennial/storage/memory_store.h"

namespace perennial {

namespace json = boost::json;

namespace {

constexpr const char *kLayerKey = "layer", *kPoolKey = "pool";
constexpr std::string_view kRouterKey = "router_";
constexpr const char *kWeightsKey = "weights", *kStateKey = "optimizer_state";
constexpr std::string_view kOneReader =
    "; a torch archive keeps a layer with its pool: commit such layers to a store";

std::uint64_t bytes_of(const Pool& pool, const std::vector<Generation>& generations) {
  std::uint64_t bytes = 0;
  for (const Generation& g : generations) {
    if (g.state == GenerationState::unlearned) continue;
    bytes += pool.options().pages(g.rows, g.cols) * pool.payload_bytes();
  }
  return bytes;
}

void write(torch::serialize::OutputArchive& archive, const std::string& key,
           const at::Tensor& tensor) {
  archive.write(key, tensor, /*is_buffer=*/true);
}

void write(torch::serialize::OutputArchive& archive, const std::string& key,
           const std::string& text) {
  const at::Tensor bytes = at::empty({static_cast<std::int64_t>(text.size())}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  write(archive, key, bytes);
}

void write(torch::serialize::OutputArchive& archive, const std::string& key,
           const PageContents& contents) {
  write(archive, key + "_places", contents.places);
  write(archive, key, contents.payloads);
}

at::Tensor read(torch::serialize::InputArchive& archive, const std::string& key) {
  at::Tensor tensor;
  if (!archive.try_read(key, tensor, /*is_buffer=*/true)) {
    throw DataError("the archive has no '" + key +
                    "': it is no PEER layer's, or was saved without the experts");
  }
  return tensor.cpu().contiguous();
}

storage::Bytes read_text(torch::serialize::InputArchive& archive, const std::string& key) {
  const at::Tensor tensor = read(archive, key);
  const auto* begin = static_cast<const std::byte*>(tensor.const_data_ptr());
  return {begin, begin + tensor.nbytes()};
}

PageContents read_pages(torch::serialize::InputArchive& archive, const std::string& key) {
  return {read(archive, key + "_places"), read(archive, key)};
}

// The entries that a store would have of the layer, without pages.
std::unique_ptr<storage::PageStore> dense_part(torch::serialize::InputArchive& archive,
                                               const std::string& layer, const Pool& pool) {
  const std::string entry = layer_entry(layer);
  storage::CommitRequest request;
  request.dense[entry] = read_text(archive, kLayerKey);
  request.dense["pool/" + std::to_string(pool.id())] = read_text(archive, kPoolKey);
  for (const std::string& key : archive.keys()) {
    std::uint32_t index = 0;
    if (!key.starts_with(kRouterKey) ||
        std::from_chars(key.data() + kRouterKey.size(), key.data() + key.size(), index).ec !=
            std::errc()) {
      continue;
    }
    torch::serialize::InputArchive router;
    archive.read(key, router);
    for (const std::string& name : router.keys()) {
      c10::IValue value;
      router.read(name, value);
      request.dense[entry + "/" + Router::prefix(index) + name] = bytes_from(value.toTensor());
    }
  }
  auto store = storage::make_memory_store();
  (void)value_or_throw(store->commit(request));
  return store;
}

}  // namespace

void PeerImpl::save(torch::serialize::OutputArchive& archive) const {
  pool_->require_one_reader(kOneReader);
  const std::uint64_t bytes = bytes_of(*pool_, pool_->generations());
  if (bytes > kMaxArchiveBytes) {
    throw Error("the layer's experts take " + std::to_string(bytes) +
                " bytes; a torch archive may have " + std::to_string(kMaxArchiveBytes) +
                " of them: commit the layer to a store (add_to_commit()), which writes only what "
                "changed, and open it with PeerImpl::load()");
  }
  torch::nn::Module::save(archive);
  write(archive, kLayerKey, record());
  write(archive, kPoolKey, pool_->record());
  write(archive, kWeightsKey, pool_->contents(storage::PageKind::weights));
  write(archive, kStateKey, pool_->contents(storage::PageKind::state));
}

void PeerImpl::load(torch::serialize::InputArchive& archive) {
  const torch::NoGradGuard no_grad;
  pool_->require_one_reader(kOneReader);
  const auto store = dense_part(archive, name_, *pool_);
  if (bytes_of(*pool_, Pool::stored_generations(pool_->id(), *store)) > kMaxArchiveBytes) {
    throw DataError("the archive's experts would take more than " +
                    std::to_string(kMaxArchiveBytes) + " bytes, which none may");
  }
  const std::shared_ptr<PeerImpl> from = load(*store, name_, Pool::load(pool_->id(), *store, 0));
  const json::object wanted = to_json(options_), found = to_json(from->options_);
  for (const auto& [name, value] : wanted) {
    if (found.at(name) == value) continue;
    throw Error("the archive is of a layer with " + std::string(name) + " " +
                json::serialize(found.at(name)) + ", not " + json::serialize(value) +
                "; make the layer with its options");
  }
  for (const Generation& g : from->pool_->generations()) {
    if (g.state == GenerationState::frozen && from->router_digest(g.index) != g.router_digest) {
      throw DataError("the router of generation " + std::to_string(g.index) +
                      " of the archive is not what froze: its digest has changed");
    }
  }
  const std::vector<Generation> before = pool_->generations();
  pool_->restore(from->pool_->generations(), read_pages(archive, kWeightsKey),
                 read_pages(archive, kStateKey));
  take_routers(*from, before);
  dropout_draws_ = from->dropout_draws_;
  remembered_.reset();
}

// before: the generations that this layer's routers are of.
void PeerImpl::take_routers(PeerImpl& from, const std::vector<Generation>& before) {
  const std::vector<Generation>& now = pool_->generations();
  const auto same_states = [&](std::size_t router) {
    if (options_.routing == Routing::isolated) return before[router].state == now[router].state;
    return std::equal(before.begin(), before.end(), now.begin(), now.end(),
                      [](const auto& a, const auto& b) { return a.state == b.state; });
  };
  for (std::size_t i = 0; i < std::max(routers_.size(), from.routers_.size()); ++i) {
    const std::string name = std::string(kRouterKey) + std::to_string(i);
    const auto other = i < from.routers_.size() ? from.routers_[i] : nullptr;
    const auto own = i < routers_.size() ? routers_[i] : nullptr;
    if (own != nullptr && other != nullptr && same_states(i) && own->assign(*other)) continue;
    if (own != nullptr && other != nullptr) {
      other->statistics_held = own->statistics_held;
      replace_module(name, other);
    } else if (own != nullptr) {
      unregister_module(name);
    } else if (other != nullptr) {
      register_module(name, other);
    }
    if (i < routers_.size()) {
      routers_[i] = other;
    } else {
      routers_.push_back(other);
    }
  }
  routers_.resize(from.routers_.size());
  place_routers();
}

}  // namespace perennial
