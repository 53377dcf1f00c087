// SPDX-License-Identifier: Apache-2.0
// The PEER layer over the device's kernels.
// Symbols: B tokens, H heads, K top-k, S = H K slots, r neurons an expert, D = d_key / 2.
#include "device_layer.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "perennial/core/error.h"
#include "perennial/kernels/cuda/experts.h"
#include "perennial/kernels/cuda/retrieve.h"
#include "runtime.h"
#include "token_threads.h"

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

kernels::cuda::RetrieveArgs retrieve_args(const PeerOptions& options, const at::Tensor& query,
                                          const at::Tensor& row_keys, const at::Tensor& col_keys) {
  const auto side = [](const at::Tensor& keys) {
    return kernels::cuda::SubKeys{keys.size(1), keys.size(0) > 1, data(keys)};
  };
  kernels::cuda::RetrieveArgs args;
  args.heads = options.heads;
  args.k = options.top_k;
  args.sub_dim = options.d_key / 2;
  args.query = data(query);
  args.rows = side(row_keys);
  args.cols = side(col_keys);
  return args;
}

at::Tensor drop_out(const PeerOptions& options, std::uint64_t draw, const at::Tensor& values) {
  at::Tensor kept = at::empty_like(values);
  check(kernels::cuda::dropout(static_cast<std::uint64_t>(options.seed), draw, options.dropout,
                               data(values), out(kept), values.numel(),
                               current_stream(values.device())),
        "dropout");
  return kept;
}

}  // namespace

void DeviceLayer::require_served(const PeerOptions& options) {
  if (options.top_k <= kernels::cuda::kMaxTopK) return;
  throw InvalidOptions("top_k is " + std::to_string(options.top_k) +
                       "; on a CUDA device it may be at most " +
                       std::to_string(kernels::cuda::kMaxTopK));
}

struct DeviceLayer::Call : torch::CustomClassHolder {
  std::shared_ptr<DevicePool> experts;
  std::shared_ptr<Pool> pool;  // which they are of: a graph may outlive the module
  PeerOptions options;
  std::vector<kernels::KeySegment> segments;
  ExpertsRead read;
  std::optional<std::uint64_t> dropout_draw;
  Amp amp = Amp::off;
};

DeviceLayer::Found DeviceLayer::find(DevicePool& experts, const PeerOptions& options, Amp amp,
                                     const at::Tensor& query, const at::Tensor& row_keys,
                                     const at::Tensor& col_keys,
                                     const std::vector<kernels::KeySegment>& segments,
                                     std::optional<std::uint64_t> dropout_draw) {
  const at::Device device = query.device();
  const kernels::cuda::Stream stream = current_stream(device);
  const std::int64_t tokens = query.size(0), slots = options.heads * options.top_k;
  const at::TensorOptions like = query.options();
  Found found{at::empty({tokens, slots}, like.dtype(at::kLong)),
              at::empty({tokens, slots}, like),
              at::empty({tokens, slots}, like.dtype(at::kInt)),
              at::empty({tokens, slots}, like),
              {}};
  const auto bytes = static_cast<std::int64_t>(segments.size() * sizeof(kernels::KeySegment));
  at::Tensor listed = host_buffer(device, bytes);
  std::memcpy(listed.data_ptr(), segments.data(), static_cast<std::size_t>(bytes));
  const at::Tensor on_device = listed.to(device, /*non_blocking=*/true);
  kernels::cuda::RetrieveArgs args = retrieve_args(options, query, row_keys, col_keys);
  at::Tensor low_query, low_rows, low_cols;
  if (amp == Amp::bf16) {
    const auto low = [](const at::Tensor& tensor, at::Tensor& kept) {
      kept = tensor.to(at::kBFloat16);
      return static_cast<const kernels::BFloat16*>(kept.const_data_ptr());
    };
    args.rounded_query = low(query, low_query);
    args.rows.rounded = low(row_keys, low_rows);
    args.cols.rounded = low(col_keys, low_cols);
  }
  args.segments = segments.data();
  args.device_segments = static_cast<const kernels::KeySegment*>(on_device.const_data_ptr());
  args.segment_count = static_cast<std::int64_t>(segments.size());
  args.ids = found.ids.mutable_data_ptr<std::int64_t>();
  args.scores = out(found.scores);
  args.row_index = found.row_index.mutable_data_ptr<std::int32_t>();
  const std::size_t needed = kernels::cuda::retrieve_workspace(args, tokens);
  check(kernels::cuda::retrieve(
            args, tokens, experts.workspace().bytes(static_cast<std::int64_t>(needed)).data_ptr(),
            needed, stream),
        "retrieval");
  check(kernels::cuda::score_forward(options.score, options.heads, options.top_k,
                                     data(found.scores), out(found.weights), tokens, stream),
        "the score function");
  if (dropout_draw) {
    found.normalised = found.weights;
    found.weights = drop_out(options, *dropout_draw, found.normalised);
  }
  return found;
}

class DeviceLayer::Function : public torch::autograd::Function<DeviceLayer::Function> {
 public:
  // Places among the inputs of forward().
  static constexpr std::size_t kExperts = 4, kInputs = 6;

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& query,
                            const at::Tensor& row_keys, const at::Tensor& col_keys,
                            const at::Tensor& /*experts*/, const c10::intrusive_ptr<Call>& call) {
    const Found found = find(*call->experts, call->options, call->amp, query, row_keys, col_keys,
                             call->segments, call->dropout_draw);
    const ExpertAnswer answer =
        call->experts->forward({found.ids, found.weights, x, call->options.activation});
    ctx->save_for_backward({x, query, row_keys, col_keys, found.ids, found.row_index, found.weights,
                            answer.pre, answer.gate, found.normalised});
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    return answer.y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "the PEER layer has no second derivative: call backward without create_graph");
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &query = saved[1], &row_keys = saved[2], &col_keys = saved[3],
                     &ids = saved[4], &row_index = saved[5], &weights = saved[6], &pre = saved[7],
                     &gate = saved[8], &normalised = saved[9];
    const auto call = c10::static_intrusive_pointer_cast<Call>(ctx->saved_data["call"].toCapsule());
    DevicePool& pool = *call->experts;
    if (row_keys.device() != pool.device() || col_keys.device() != pool.device()) {
      throw Error("the layer left " + pool.device().str() + " between a forward and its backward");
    }
    call->read.require_unchanged(*call->pool);
    const c10::DeviceGuard guard(pool.device());
    const PeerOptions& options = call->options;
    const kernels::cuda::Stream stream = current_stream(pool.device());
    const std::int64_t tokens = x.size(0), slots = ids.size(1);
    const at::Tensor dy = grads[0].contiguous();

    // Experts, the token side.
    const ExpertBackward experts = pool.backward({ids, weights, x, options.activation},
                                                 {{}, pre, gate}, dy, ctx->needs_input_grad(0));
    at::Tensor dweights = experts.dweights;
    // Copies of what the caller may fill again before the step.
    if (ctx->needs_input_grad(kExperts) && call->pool->open_generation()) {
      const at::Tensor own_dy = dy.is_same(grads[0]) ? dy.clone() : dy;
      pool.keep({slots, ids, x.detach().clone(), own_dy, experts.cu, experts.cv, experts.cw});
    }
    bool more = false;
    for (std::size_t input = 0; input < kExperts; ++input) more |= ctx->needs_input_grad(input);
    if (!more) return variable_list(kInputs);

    // Scores, query and sub-keys.
    if (call->dropout_draw) dweights = drop_out(options, *call->dropout_draw, dweights);
    at::Tensor dscores = at::empty_like(dweights), dquery = at::empty_like(query);
    check(kernels::cuda::score_backward(options.score, options.heads, options.top_k,
                                        data(call->dropout_draw ? normalised : weights),
                                        data(dweights), out(dscores), tokens, stream),
          "the score function's backward");
    const at::Tensor scored = rounded(query, call->amp), scored_rows = rounded(row_keys, call->amp),
                     scored_cols = rounded(col_keys, call->amp);
    kernels::cuda::RetrieveArgs args = retrieve_args(options, scored, scored_rows, scored_cols);
    args.ids = const_cast<std::int64_t*>(ids.const_data_ptr<std::int64_t>());
    args.row_index = const_cast<std::int32_t*>(row_index.const_data_ptr<std::int32_t>());
    check(kernels::cuda::retrieve_backward_query(args, data(dscores), tokens, out(dquery), stream),
          "the query's gradient");
    at::Tensor drow_keys, dcol_keys;
    if (ctx->needs_input_grad(2) || ctx->needs_input_grad(3)) {
      drow_keys = at::zeros_like(row_keys);
      dcol_keys = at::zeros_like(col_keys);
      const std::size_t bytes = kernels::cuda::retrieve_backward_keys_workspace(args, tokens);
      check(kernels::cuda::retrieve_backward_keys(
                args, data(dscores), tokens,
                pool.workspace().bytes(static_cast<std::int64_t>(bytes)).data_ptr(), bytes,
                out(drow_keys), out(dcol_keys), stream),
            "the sub-keys' gradient");
    }
    return {experts.dx, dquery, drow_keys, dcol_keys, at::Tensor(), at::Tensor()};
  }
};

at::Tensor DeviceLayer::forward(const std::shared_ptr<Router>& router,
                                const std::shared_ptr<Pool>& pool, const at::Tensor& x,
                                const ForwardMode& mode) {
  const c10::DeviceGuard guard(experts_->device());
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  if (&pool->where() != experts_.get()) {
    throw Error("the experts of pool '" + pool->name() +
                "' have moved since the layer was placed; place all layers that read it as one");
  }
  const PeerOptions& options = router->options();
  const bool batch_statistics = router->batch_statistics(mode.training);
  if (batch_statistics && x.size(0) < 2) {
    throw Error("batch norm needs at least 2 tokens in training, not " + std::to_string(x.size(0)));
  }
  const at::Tensor query = query_of(*router, x, batch_statistics).contiguous();
  const at::Tensor row_keys = router->row_keys().contiguous();
  const at::Tensor col_keys = router->col_keys().contiguous();
  auto call = c10::make_intrusive<Call>();
  call->experts = experts_;
  call->pool = pool;
  call->options = options;
  call->segments = router->segments();
  call->read = ExpertsRead(*pool, mode);
  call->dropout_draw = mode.dropout_draw;
  call->amp = router->amp;
  return Function::apply(x, query, row_keys, col_keys, experts_leaf(mode, x.options()), call);
}

PeerImpl::Retrieval DeviceLayer::retrieve(const Router& router, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  const c10::DeviceGuard guard(experts_->device());
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const PeerOptions& options = router.options();
  const Found found = find(*experts_, options, router.amp, query_of(router, x, false).contiguous(),
                           router.row_keys().contiguous(), router.col_keys().contiguous(),
                           router.segments(), std::nullopt);
  const std::vector<std::int64_t> shape = {x.size(0), options.heads, options.top_k};
  return {found.ids.view(shape), found.scores.view(shape), found.weights.view(shape)};
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
  if (peer.pool().readers() > 1) {
    throw Error("pool '" + peer.pool().name() + "' is read by " +
                std::to_string(peer.pool().readers()) + " layers, which move as one model");
  }
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
