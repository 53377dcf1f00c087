// SPDX-License-Identifier: Apache-2.0
// The PEER module: shapes, generations and answers.
#include "perennial/core/peer.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <boost/json/serialize.hpp>
#include <optional>

#include "nn/host_selection.h"
#include "nn/layer_math.h"
#include "nn/peer_function.h"
#include "nn/record_names.h"
#include "nn/router.h"
#include "record.h"

namespace perennial {

namespace json = boost::json;

namespace {

std::shared_ptr<Pool> own_pool(const PeerOptions& options, const storage::PageReader* store,
                               std::int64_t budget_bytes) {
  options.validate();
  if (store != nullptr) PeerImpl::require_new(*store, std::string(kDefaultName));
  return std::make_shared<Pool>(0, options.pool(), store, budget_bytes);
}

void check_input(const PeerOptions& options, const Pool& pool, const Router& router,
                 const torch::Tensor& x) {
  const at::Device device = pool.device();
  if (router.query.device() != device) {
    throw Error("the layer's routers are on " + router.query.device().str() +
                " and its experts on " + device.str() +
                "; perennial::cuda::place_on() moves a layer, torch's to() does not");
  }
  if (x.dim() < 1 || x.size(-1) != options.d_in || x.scalar_type() != at::kFloat ||
      x.device() != device) {
    throw Error("the PEER layer expects " + (device.is_cpu() ? "CPU" : device.str()) +
                " float32 (..., " + std::to_string(options.d_in) + "), not " +
                std::string(c10::toString(x.scalar_type())) + " " + c10::str(x.sizes()) + " on " +
                x.device().str());
  }
  if (router.visible_experts() < options.top_k) {
    throw Error("fewer than top_k = " + std::to_string(options.top_k) +
                " experts are unmasked; call unmask()");
  }
}

}  // namespace

PeerImpl::PeerImpl(const PeerOptions& options) : PeerImpl(options, nullptr, 0) { grow(); }

PeerImpl::PeerImpl(const PeerOptions& options, const storage::PageReader* store,
                   std::int64_t budget_bytes)
    : PeerImpl(options, own_pool(options, store, budget_bytes), std::string(kDefaultName)) {}

PeerImpl::PeerImpl(const PeerOptions& options, std::shared_ptr<Pool> pool, std::string name)
    : PeerImpl(options, std::move(pool), std::move(name), Loading()) {
  if (pool_->generations().empty()) return;
  throw Error("pool '" + pool_->name() + "' has generations already, for which layer '" + name_ +
              "' would have no router");
}

PeerImpl::PeerImpl(const PeerOptions& options, std::shared_ptr<Pool> pool, std::string name,
                   Loading)
    : torch::nn::Module("peer"), options_(options), name_(std::move(name)), pool_(std::move(pool)) {
  require_name("layer", name_);
  options_.validate();
  const json::object wanted = to_json(options_.pool()), there = to_json(pool_->options());
  for (const auto& [field, value] : wanted) {
    if (there.at(field) == value) continue;
    throw InvalidOptions("layer '" + name_ + "' has " + std::string(field) + " " +
                         json::serialize(value) + "; the pool '" + pool_->name() +
                         "' that it is to read has " + json::serialize(there.at(field)));
  }
  pool_->add_reader();
}

PeerImpl::~PeerImpl() { pool_->remove_reader(); }

void PeerImpl::require_new(const storage::PageReader& store, const std::string& name) {
  require_no_record(store, layer_entry(name), "a layer '" + name + "'");
}

void PeerImpl::require_alone(std::string_view what) const {
  pool_->require_one_reader(", which only ExpertLayers can " + std::string(what) + " as one");
}

void PeerImpl::require_known(std::uint32_t generation) const {
  if (pool_->generation(generation).state != GenerationState::unlearned) return;
  throw InvalidOptions("generation " + std::to_string(generation) +
                       " was unlearned; it answers nothing");
}

const Router& PeerImpl::router_of(std::uint32_t generation) const {
  require_known(generation);
  return *routers_[options_.routing == Routing::shared ? 0 : generation];
}

std::shared_ptr<Router> PeerImpl::new_router(std::uint32_t index) const {
  PeerOptions options = options_;
  options.seed = seed_for(options.seed, name_);
  auto router = std::make_shared<Router>(options, index);
  router->first_draw = dropout_draws_;
  return router;
}

void PeerImpl::add_router(std::shared_ptr<Router> router) {
  const std::string name = "router_" + std::to_string(routers_.size());
  routers_.push_back(register_module(name, std::move(router)));
}

void PeerImpl::compute_with(std::shared_ptr<LayerMath> math) {
  math_ = std::move(math);
  remembered_.reset();
  place_routers();
}

void PeerImpl::place_routers() {
  const at::Device device = pool_->device();
  std::vector<torch::Tensor> tensors = parameters();
  for (torch::Tensor& buffer : buffers()) tensors.push_back(buffer);
  for (torch::Tensor& tensor : tensors) {
    if (tensor.device() == device) continue;
    tensor.set_data(tensor.detach().to(device));
    tensor.mutable_grad().reset();
  }
  for (const auto& router : routers_) {
    if (router == nullptr || router->amp == amp_) continue;
    router->amp = amp_;
    router->keys_changed();
  }
}

void PeerImpl::set_amp(Amp amp) {
  amp_ = amp;
  remembered_.reset();
  place_routers();
}

torch::Tensor PeerImpl::through(const std::shared_ptr<Router>& router, const torch::Tensor& x,
                                const ForwardMode& mode) {
  if (math_ != nullptr) return math_->forward(router, pool_, x, mode);
  return peer_forward(router, pool_, x, mode);
}

torch::Tensor PeerImpl::run(std::uint32_t generation, const torch::Tensor& x) {
  require_known(generation);
  const std::shared_ptr<Router>& router =
      routers_[options_.routing == Routing::shared ? 0 : generation];
  check_input(options_, *pool_, *router, x);
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = options_.d_out;
  const torch::Tensor flat = x.reshape({-1, options_.d_in}).contiguous();
  if (flat.size(0) == 0) return at::empty(shape, x.options());
  const std::optional<std::uint32_t> open = pool_->open_generation();
  ForwardMode mode;
  mode.training = is_training();
  mode.reads_open = open && (options_.routing == Routing::shared || *open == generation);
  mode.expert_gradients =
      mode.reads_open && (expert_gradients_ == ExpertGradients::always ||
                          (expert_gradients_ == ExpertGradients::training && mode.training));
  if (mode.training && mode.reads_open && options_.dropout > 0) {
    mode.dropout_draw = dropout_draws_++;
  }
  return through(router, flat, mode).reshape(shape);
}

void PeerImpl::zero_grad(bool set_to_none) {
  torch::nn::Module::zero_grad(set_to_none);
  pool_->zero_grad();
}

torch::Tensor PeerImpl::forward(const torch::Tensor& x) {
  if (pool_->generations().empty()) throw Error("the pool has no generation; call grow()");
  return run(pool_->generations().back().index, x);
}

torch::Tensor PeerImpl::forward(const torch::Tensor& x, std::uint32_t generation) {
  if (options_.routing == Routing::shared) {
    throw Error("shared routing has one router: it cannot answer from a single generation");
  }
  return run(generation, x);
}

torch::Tensor PeerImpl::frozen_routing() const {
  if (options_.routing != Routing::shared) throw Error("isolated generations keep their routing");
  if (routers_.empty()) throw Error("the pool has no generation; call grow()");
  const torch::NoGradGuard no_grad;
  const Router& router = *routers_.front();
  std::vector<torch::Tensor> parts;
  for (const auto& [name, tensor] : router.tensors()) {
    const bool of_open = pool_->open_generation() && tensor.is_same(router.row_blocks.back().keys);
    if (!of_open) parts.push_back(tensor.reshape({-1}));
  }
  return at::cat(parts).clone();
}

torch::Tensor PeerImpl::forward_as(const torch::Tensor& routing, const torch::Tensor& x) {
  const torch::NoGradGuard no_grad;
  if (options_.routing != Routing::shared) throw Error("isolated generations keep their routing");
  if (!remembered_ || !remembered_routing_.is_same(routing)) {
    // The copy is of as many generations as its length says.
    auto router = new_router(0);
    const auto floats = [&] {
      std::int64_t n = 0;
      for (const auto& [name, tensor] : router->tensors()) n += tensor.numel();
      return n;
    };
    for (const Generation& generation : pool_->generations()) {
      if (generation.state == GenerationState::open || floats() >= routing.numel()) break;
      router->add_rows(generation, true);
      router->add_columns(generation.cols);
    }
    if (routing.scalar_type() != at::kFloat || routing.dim() != 1 || floats() != routing.numel()) {
      throw Error("the copy of a router is of another layer");
    }
    std::int64_t begin = 0;
    for (auto& [name, tensor] : router->tensors()) {
      tensor.copy_(routing.narrow(0, begin, tensor.numel()).view(tensor.sizes()));
      begin += tensor.numel();
    }
    router->keys_changed();
    if (!pool_->device().is_cpu()) router->to(pool_->device());
    router->amp = amp_;
    remembered_ = std::move(router);
    remembered_routing_ = routing;
  }
  check_input(options_, *pool_, *remembered_, x);
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = options_.d_out;
  const torch::Tensor flat = x.reshape({-1, options_.d_in}).contiguous();
  if (flat.size(0) == 0) return at::empty(shape, x.options());
  return through(remembered_, flat, {}).reshape(shape);
}

PeerImpl::Retrieval PeerImpl::retrieve(const torch::Tensor& x, std::uint32_t generation) {
  const torch::NoGradGuard no_grad;
  const Router& router = router_of(generation);
  check_input(options_, *pool_, router, x);
  const torch::Tensor flat = x.reshape({-1, options_.d_in}).contiguous();
  if (math_ != nullptr) return math_->retrieve(router, flat);
  const QueryResult query =
      compute_query(router, flat, router.query, router.gamma, router.beta, false);
  const Retrieved found = retrieve_experts(router, query.normed);
  const torch::Tensor weights = host_selection()->weigh(options_, found.scores);
  const std::vector<std::int64_t> shape = {flat.size(0), options_.heads, options_.top_k};
  return {found.ids.view(shape), found.scores.view(shape), weights.view(shape)};
}

}  // namespace perennial
