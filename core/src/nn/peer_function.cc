// SPDX-License-Identifier: Apache-2.0
// Forward and backward of the query network and its norm over the kernels, around the selection.
#include "nn/peer_function.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <chrono>
#include <span>
#include <string>
#include <utility>

#include "nn/host_selection.h"
#include "nn/norm_backward.h"
#include "nn/selection.h"
#include "perennial/core/dense_entries.h"
#include "perennial/core/error.h"
#include "perennial/kernels/matmul.h"
#include "token_threads.h"

namespace perennial {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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

struct Computed {
  QueryResult query;
  Answered answered;
};

// The query network's tensors, in the order that autograd knows them by.
struct QueryTensors {
  const at::Tensor &weight, &gamma, &beta;
};

Computed compute(const LayerCall& call, const at::Tensor& x, const QueryTensors& network) {
  Computed c;
  c.query = compute_query(*call.router, x, network.weight, network.gamma, network.beta,
                          call.batch_statistics);
  c.answered = ask_experts(call, x, retrieve_experts(*call.router, c.query.normed));
  if (call.batch_statistics) update_running(*call.router, c.query, x.size(0));
  return c;
}

class PeerFunction : public torch::autograd::Function<PeerFunction> {
 public:
  // Places among the inputs of forward().
  static constexpr std::size_t kExperts = 6, kInputs = 8;

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& gamma, const at::Tensor& beta,
                            const at::Tensor& row_keys, const at::Tensor& col_keys,
                            const at::Tensor& /*experts*/,
                            const c10::intrusive_ptr<LayerCall>& call) {
    const Computed c = compute(*call, x, {weight, gamma, beta});
    const QueryResult& query = c.query;
    variable_list saved = SavedSelection{x, query.normed, row_keys, col_keys, c.answered}.tensors();
    for (const at::Tensor& tensor :
         {weight, gamma, query.raw, query.mean, query.rstd, query.scale}) {
      saved.push_back(tensor);
    }
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    return c.answered.answer.y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list all = ctx->get_saved_variables();
    const SavedSelection saved = SavedSelection::of(all);
    const std::span own = std::span(all).subspan(SavedSelection::kTensors);
    const at::Tensor &weight = own[0], &gamma = own[1], &raw = own[2], &mean = own[3],
                     &rstd = own[4], &scale = own[5], &x = saved.x;
    if (!weight.is_cpu()) throw Error("the layer left cpu between a forward and its backward");
    const auto call =
        c10::static_intrusive_pointer_cast<LayerCall>(ctx->saved_data["call"].toCapsule());
    const Router& router = *call->router;
    const PeerOptions& options = router.options();
    const std::int64_t tokens = x.size(0), channels = options.heads * options.d_key;
    const WantedGradients wanted = wanted_gradients(*ctx, kExperts);
    const SelectionGradient gradient = selection_backward(*call, saved, grads[0], wanted);
    if (!wanted.any) return variable_list(kInputs);
    at::Tensor dx = gradient.dx;

    // Norm and query network.
    const auto [dquery, dgamma, dbeta] =
        norm_backward(router, {raw, saved.query, mean, rstd, scale}, gamma, gradient.dquery,
                      call->batch_statistics);
    const at::Tensor draw = rounded(dquery, call->amp);
    at::Tensor dweight;
    if (ctx->needs_input_grad(1)) {
      const at::Tensor in = rounded(x, call->amp);
      dweight = at::empty_like(weight);
      at::parallel_for(0, channels, 8, [&](auto begin, auto end) {
        kernels::matmul_nn(end - begin, options.d_in, tokens, data(draw) + begin, 1, channels,
                           data(in), options.d_in, out(dweight) + begin * options.d_in,
                           options.d_in, false);
      });
      dweight = rounded(dweight, call->amp);
    }
    if (dx.defined()) {
      const bool whole = call->amp == Amp::off;
      const at::Tensor w = rounded(weight, call->amp);
      at::Tensor sum = whole ? dx : at::empty_like(dx);
      over_tokens(0, tokens, [&](auto begin, auto end) {
        kernels::matmul_nn(end - begin, options.d_in, channels, data(draw) + begin * channels,
                           channels, 1, data(w), options.d_in, out(sum) + begin * options.d_in,
                           options.d_in, whole);
      });
      if (!whole) dx.add_(rounded(sum, call->amp));
    }
    return {dx,           dweight,     dgamma, dbeta, gradient.drow_keys, gradient.dcol_keys,
            at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor peer_forward(const std::shared_ptr<Router>& router, const std::shared_ptr<Pool>& pool,
                        const at::Tensor& x, const ForwardMode& mode) {
  const auto call = c10::make_intrusive<LayerCall>(router, pool, host_selection(), mode, x.size(0));
  const auto differentiable = [&] {
    const auto trains = [](const at::Tensor& t) { return t.defined() && t.requires_grad(); };
    return mode.expert_gradients || trains(x) || trains(router->query) || trains(router->gamma) ||
           trains(router->beta) || trains(router->row_keys()) || trains(router->col_keys());
  };
  if (!at::GradMode::is_enabled() || !differentiable()) {
    const auto answer = [&] {
      return compute(*call, x, {router->query, router->gamma, router->beta}).answered.answer.y;
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
