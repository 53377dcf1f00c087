// SPDX-License-Identifier: Apache-2.0
// Forward and backward of the PEER layer over the kernels, chunk by chunk of what the pager can
// hold.
#include "nn/peer_function.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <chrono>
#include <vector>

#include "nn/norm_backward.h"
#include "perennial/core/dense_entries.h"
#include "perennial/core/error.h"
#include "perennial/kernels/matmul.h"
#include "pool/expert_place.h"
#include "token_threads.h"

namespace perennial {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What a call needs beside its tensors.
struct Call : torch::CustomClassHolder {
  std::shared_ptr<Router> router;
  std::shared_ptr<Pool> pool;
  ExpertsRead read;
  bool batch_statistics = false;
  std::optional<std::uint64_t> dropout_draw;
};

// Forward: the weights of the experts that stay; backward: of their gradients those that reach the
// scores. values: (B, S).
at::Tensor drop_out(const Call& call, const at::Tensor& values) {
  const PeerOptions& options = call.router->options();
  at::Tensor kept = at::empty_like(values);
  const std::int64_t slots = values.size(1);
  over_tokens(0, values.size(0), [&](auto begin, auto end) {
    kernels::dropout(static_cast<std::uint64_t>(options.seed), *call.dropout_draw, options.dropout,
                     data(values), out(kept), begin * slots, end * slots);
  });
  return kept;
}

// Running statistics with the unbiased variance, as torch's batch norm keeps them.
void update_running(Router& router, const QueryResult& query, std::int64_t tokens) {
  const double momentum = router.options().norm_momentum;
  const double unbiased = static_cast<double>(tokens) / static_cast<double>(tokens - 1);
  for (std::int64_t c = 0; c < query.mean.numel(); ++c) {
    const double rstd = data(query.rstd)[c];
    const double var = (1.0 / (rstd * rstd) - router.options().norm_eps) * unbiased;
    float& mean = out(router.running_mean)[c];
    float& running_var = out(router.running_var)[c];
    mean = static_cast<float>((1 - momentum) * mean + momentum * data(query.mean)[c]);
    running_var = static_cast<float>((1 - momentum) * running_var + momentum * var);
  }
  count_write(router.running_mean);
  count_write(router.running_var);
}

// All that a forward computes; what a backward needs of it is saved.
struct Computed {
  QueryResult query;
  RetrieveResult found;
  at::Tensor weights, normalised;  // after and before dropout; the latter with dropout only
  ExpertAnswer answer;
};

// The router's tensors, in the order that autograd knows them by.
struct RouterTensors {
  const at::Tensor &weight, &gamma, &beta;
};

Computed compute(const Call& call, const at::Tensor& x, const RouterTensors& router) {
  const PeerOptions& options = call.router->options();
  Computed c;
  c.query = compute_query(*call.router, x, router.weight, router.gamma, router.beta,
                          call.batch_statistics);
  c.found = retrieve_experts(*call.router, c.query.normed);
  const std::int64_t tokens = x.size(0), slots = c.found.ids.size(1);
  c.weights = at::empty({tokens, slots});
  over_tokens(0, tokens, [&](auto begin, auto end) {
    kernels::score_forward(options.score, options.heads, options.top_k, data(c.found.scores),
                           out(c.weights), begin, end);
  });
  if (call.dropout_draw) {
    c.normalised = c.weights;
    c.weights = drop_out(call, c.normalised);
  }
  c.answer = call.pool->where().forward({c.found.ids, c.weights, x, options.activation});
  if (call.batch_statistics) update_running(*call.router, c.query, tokens);
  return c;
}

class PeerFunction : public torch::autograd::Function<PeerFunction> {
 public:
  // Places among the inputs of forward().
  static constexpr std::size_t kExperts = 6, kInputs = 8;

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& gamma, const at::Tensor& beta,
                            const at::Tensor& row_keys, const at::Tensor& col_keys,
                            const at::Tensor& /*experts*/, const c10::intrusive_ptr<Call>& call) {
    const Computed c = compute(*call, x, {weight, gamma, beta});
    ctx->save_for_backward({x, weight, gamma, row_keys, col_keys, c.query.raw, c.query.normed,
                            c.query.mean, c.query.rstd, c.query.scale, c.found.ids,
                            c.found.row_index, c.weights, c.answer.pre, c.answer.gate,
                            c.normalised});
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    return c.answer.y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "the PEER layer has no second derivative: call backward without create_graph");
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &gamma = saved[2], &row_keys = saved[3],
                     &col_keys = saved[4], &raw = saved[5], &normed = saved[6], &mean = saved[7],
                     &rstd = saved[8], &scale = saved[9], &ids = saved[10], &row_index = saved[11],
                     &weights = saved[12], &pre = saved[13], &gate = saved[14],
                     &normalised = saved[15];
    if (!weight.is_cpu()) throw Error("the layer left cpu between a forward and its backward");
    const auto call = c10::static_intrusive_pointer_cast<Call>(ctx->saved_data["call"].toCapsule());
    const Router& router = *call->router;
    Pool& pool = *call->pool;
    call->read.require_unchanged(pool);
    const bool batch_statistics = call->batch_statistics;
    const PeerOptions& options = router.options();
    const std::int64_t tokens = x.size(0), slots = ids.size(1);
    const std::int64_t channels = options.heads * options.d_key;
    const at::Tensor dy = grads[0].contiguous();

    // Experts, the token side.
    const ExpertBackward experts = pool.where().backward(
        {ids, weights, x, options.activation}, {{}, pre, gate}, dy, ctx->needs_input_grad(0));
    at::Tensor dx = experts.dx, dweights = experts.dweights;
    // Their own gradients wait for the optimizer. The caller may fill x and dy again before the
    // step (a buffer of micro-batches does), so what is kept has copies of what is not its own.
    if (ctx->needs_input_grad(kExperts) && pool.open_generation()) {
      const at::Tensor own_dy = dy.is_same(grads[0]) ? dy.clone() : dy;
      pool.where().keep(
          {slots, ids, x.detach().clone(), own_dy, experts.cu, experts.cv, experts.cw});
    }
    bool more = false;
    for (std::size_t input = 0; input < kExperts; ++input) more |= ctx->needs_input_grad(input);
    if (!more) return variable_list(kInputs);

    // Scores, query and sub-keys.
    if (call->dropout_draw) dweights = drop_out(*call, dweights);
    const at::Tensor& score_weights = call->dropout_draw ? normalised : weights;
    at::Tensor dscores = at::empty({tokens, slots});
    at::Tensor dnormed = at::empty({tokens, channels});
    const std::vector<kernels::KeySegment> segments = router.segments();
    const at::Tensor scored = rounded(normed, router.amp), rows = rounded(row_keys, router.amp),
                     cols = rounded(col_keys, router.amp);
    kernels::RetrieveArgs retrieved = retrieve_args(options, segments, scored);
    const auto side = [](const at::Tensor& keys) {
      return kernels::SubKeys{
          .count = keys.size(1), .per_head = keys.size(0) > 1, .keys = data(keys)};
    };
    retrieved.rows = side(rows);
    retrieved.cols = side(cols);
    retrieved.ids = const_cast<std::int64_t*>(ids.const_data_ptr<std::int64_t>());
    retrieved.row_index = const_cast<std::int32_t*>(row_index.const_data_ptr<std::int32_t>());
    over_tokens(0, tokens, [&](auto begin, auto end) {
      kernels::score_backward(options.score, options.heads, options.top_k, data(score_weights),
                              data(dweights), out(dscores), begin, end);
      kernels::retrieve_backward_query(retrieved, data(dscores), begin, end, out(dnormed));
    });
    at::Tensor drow_keys, dcol_keys;
    if (ctx->needs_input_grad(4) || ctx->needs_input_grad(5)) {
      call->router->keys_changed();
      drow_keys = at::zeros_like(row_keys);
      dcol_keys = at::zeros_like(col_keys);
      const auto keys = [&](std::int64_t begin, std::int64_t end) {
        kernels::retrieve_backward_keys(retrieved, data(dscores), tokens, begin, end,
                                        out(drow_keys), out(dcol_keys));
      };
      if (options.sub_keys == SubKeys::per_head) {
        at::parallel_for(0, options.heads, 1, keys);
      } else {
        keys(0, options.heads);
      }
    }

    // Norm and query network.
    const auto [dquery, dgamma, dbeta] =
        norm_backward(router, {raw, normed, mean, rstd, scale}, gamma, dnormed, batch_statistics);
    const at::Tensor draw = rounded(dquery, router.amp);
    at::Tensor dweight;
    if (ctx->needs_input_grad(1)) {
      const at::Tensor in = rounded(x, router.amp);
      dweight = at::empty_like(weight);
      at::parallel_for(0, channels, 8, [&](auto begin, auto end) {
        kernels::matmul_nn(end - begin, options.d_in, tokens, data(draw) + begin, 1, channels,
                           data(in), options.d_in, out(dweight) + begin * options.d_in,
                           options.d_in, false);
      });
      dweight = rounded(dweight, router.amp);
    }
    if (dx.defined()) {
      const bool whole = router.amp == Amp::off;
      const at::Tensor w = rounded(weight, router.amp);
      at::Tensor sum = whole ? dx : at::empty_like(dx);
      over_tokens(0, tokens, [&](auto begin, auto end) {
        kernels::matmul_nn(end - begin, options.d_in, channels, data(draw) + begin * channels,
                           channels, 1, data(w), options.d_in, out(sum) + begin * options.d_in,
                           options.d_in, whole);
      });
      if (!whole) dx.add_(rounded(sum, router.amp));
    }
    return {dx, dweight, dgamma, dbeta, drow_keys, dcol_keys, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor peer_forward(const std::shared_ptr<Router>& router, const std::shared_ptr<Pool>& pool,
                        const at::Tensor& x, const ForwardMode& mode) {
  auto call = c10::make_intrusive<Call>();
  call->dropout_draw = mode.dropout_draw;
  call->router = router;
  call->pool = pool;
  call->read = ExpertsRead(*pool, mode);
  call->batch_statistics = router->batch_statistics(mode.training);
  if (call->batch_statistics && x.size(0) < 2) {
    throw Error("batch norm needs at least 2 tokens in training, not " + std::to_string(x.size(0)));
  }
  const auto differentiable = [&] {
    const auto trains = [](const at::Tensor& t) { return t.defined() && t.requires_grad(); };
    return mode.expert_gradients || trains(x) || trains(router->query) || trains(router->gamma) ||
           trains(router->beta) || trains(router->row_keys()) || trains(router->col_keys());
  };
  if (!at::GradMode::is_enabled() || !differentiable()) {
    const auto answer = [&] {
      return compute(*call, x, {router->query, router->gamma, router->beta}).answer.y;
    };
    if (sharing_threads() == 1 || !few_tokens(x.size(0))) return answer();
    TeamChoice& choice = router->team;
    const AloneScope scope(!choice.team());
    const auto start = std::chrono::steady_clock::now();
    at::Tensor y = answer();
    choice.took(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
                static_cast<double>(x.size(0)));
    return y;
  }
  // The autograd function wants every tensor defined, also the norm's that this layer does not
  // have.
  const auto or_empty = [](const at::Tensor& t) { return t.defined() ? t : at::empty({0}); };
  return PeerFunction::apply(x, router->query, or_empty(router->gamma), or_empty(router->beta),
                             router->row_keys().contiguous(), router->col_keys().contiguous(),
                             experts_leaf(mode, x.options()), call);
}

}  // namespace perennial
