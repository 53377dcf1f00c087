// SPDX-License-Identifier: Apache-2.0
// The PEER layer on a device.
// Symbols: B tokens, H heads, D = d_key / 2.
#include "device_layer.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rsqrt.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "perennial/core/error.h"
#include "perennial/kernels/cuda/retrieve.h"

namespace perennial::cuda {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The query (B, H 2 D), normed. Updates the running statistics with `batch_statistics`.
at::Tensor query_of(const Router& router, const at::Tensor& x, bool batch_statistics) {
  const PeerOptions& options = router.options();
  const at::Tensor raw =
      linear(x, router.query, router.folded() ? std::optional(router.query_bias) : std::nullopt,
             router.amp);
  if (options.query_norm == QueryNorm::none || router.folded()) return raw;
  if (options.query_norm == QueryNorm::batch) {
    // Copies: a later forward may move the statistics before this one's backward; and torch would
    // move them without counting that.
    const at::Tensor mean = router.running_mean.clone(), var = router.running_var.clone();
    at::Tensor normed = at::batch_norm(raw, router.gamma, router.beta, mean, var, batch_statistics,
                                       options.norm_momentum, options.norm_eps,
                                       /*cudnn_enabled=*/false);
    if (batch_statistics) {
      const at::NoGradGuard no_grad;
      router.running_mean.copy_(mean);
      router.running_var.copy_(var);
    }
    return normed;
  }
  const std::int64_t heads = options.heads, dim = options.d_key;
  const at::Tensor each = raw.view({-1, heads, dim}), gamma = router.gamma.view({heads, dim});
  if (options.query_norm == QueryNorm::rms) {
    const at::Tensor mean = each.square().mean(-1, /*keepdim=*/true);
    return (each * at::rsqrt(mean + options.norm_eps) * gamma).view_as(raw);
  }
  const at::Tensor normed =
      at::layer_norm(each, {dim}, std::nullopt, std::nullopt, options.norm_eps);
  return (normed * gamma + router.beta.view({heads, dim})).view_as(raw);
}

}  // namespace

void DeviceLayer::require_served(const PeerOptions& options) {
  if (options.top_k <= kernels::cuda::kMaxTopK) return;
  throw InvalidOptions("top_k is " + std::to_string(options.top_k) +
                       "; on a CUDA device it may be at most " +
                       std::to_string(kernels::cuda::kMaxTopK));
}

// From the query on: what is before it is in LibTorch's own graph.
class DeviceLayer::Function : public torch::autograd::Function<DeviceLayer::Function> {
 public:
  static constexpr std::size_t kExperts = 4;  // its place among the inputs of forward()

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& query,
                            const at::Tensor& row_keys, const at::Tensor& col_keys,
                            const at::Tensor& /*experts*/,
                            const c10::intrusive_ptr<LayerCall>& call) {
    const Answered answered =
        ask_experts(*call, x, kernels_of(*call).retrieve(*call->router, query, row_keys, col_keys));
    ctx->save_for_backward(SavedSelection{x, query, row_keys, col_keys, answered}.tensors());
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    return answered.answer.y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const SavedSelection saved = SavedSelection::of(ctx->get_saved_variables());
    const auto call =
        c10::static_intrusive_pointer_cast<LayerCall>(ctx->saved_data["call"].toCapsule());
    const DevicePool& experts = kernels_of(*call).experts();
    if (&call->pool->where() != &experts) {
      throw Error("the layer left " + experts.device().str() +
                  " between a forward and its backward");
    }
    const c10::DeviceGuard guard(experts.device());
    const WantedGradients wanted = wanted_gradients(*ctx, kExperts);
    const SelectionGradient gradient = selection_backward(*call, saved, grads[0], wanted);
    return {gradient.dx,        gradient.dquery, gradient.drow_keys,
            gradient.dcol_keys, at::Tensor(),    at::Tensor()};
  }

 private:
  static const DeviceSelection& kernels_of(const LayerCall& call) {
    return static_cast<const DeviceSelection&>(*call.kernels);
  }
};

at::Tensor DeviceLayer::forward(const std::shared_ptr<Router>& router,
                                const std::shared_ptr<Pool>& pool, const at::Tensor& x,
                                const ForwardMode& mode) {
  const c10::DeviceGuard guard(kernels_->experts().device());
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  if (&pool->where() != &kernels_->experts()) {
    throw Error("the experts of pool '" + pool->name() +
                "' have moved since the layer was placed; place all layers that read it as one");
  }
  const auto call = c10::make_intrusive<LayerCall>(router, pool, kernels_, mode, x.size(0));
  const at::Tensor query = query_of(*router, x, call->batch_statistics).contiguous();
  return Function::apply(x, query, router->row_keys().contiguous(), router->col_keys().contiguous(),
                         experts_leaf(mode, x.options()), call);
}

PeerImpl::Retrieval DeviceLayer::retrieve(const Router& router, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  const c10::DeviceGuard guard(kernels_->experts().device());
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const PeerOptions& options = router.options();
  const Retrieved found =
      kernels_->retrieve(router, query_of(router, x, false).contiguous(),
                         router.row_keys().contiguous(), router.col_keys().contiguous());
  const at::Tensor weights = kernels_->weigh(options, found.scores);
  const std::vector<std::int64_t> shape = {x.size(0), options.heads, options.top_k};
  return {found.ids.view(shape), found.scores.view(shape), weights.view(shape)};
}

void to_host(PeerImpl& peer) {
  peer.pool().place(nullptr);
  peer.compute_with(nullptr);
}

void to_host(ExpertLayers& layers) {
  for (const auto& pool : layers.pools()) pool->place(nullptr);
  for (const auto& [name, layer] : layers.layers()) layer->compute_with(nullptr);
}

void place_layer(PeerImpl& peer, const at::Device& device) {
  DeviceLayer::require_served(peer.options());
  peer.pool().require_one_reader(", which move as one model");
  to_host(peer);  // what another device changed is in the pages
  const auto experts = std::make_shared<DevicePool>(peer.pool(), device);
  peer.pool().place(experts);
  peer.compute_with(std::make_shared<DeviceLayer>(experts));
}

void place_layers(ExpertLayers& layers, const at::Device& device) {
  for (const auto& [name, layer] : layers.layers()) DeviceLayer::require_served(layer->options());
  to_host(layers);
  std::map<const Pool*, std::shared_ptr<DevicePool>> experts;
  for (const auto& pool : layers.pools()) {
    experts[pool.get()] = std::make_shared<DevicePool>(*pool, device);
  }
  for (const auto& pool : layers.pools()) pool->place(experts.at(pool.get()));
  for (const auto& [name, layer] : layers.layers()) {
    layer->compute_with(std::make_shared<DeviceLayer>(experts.at(&layer->pool())));
  }
}

}  // namespace perennial::cuda
