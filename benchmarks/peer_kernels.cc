// SPDX-License-Identifier: Apache-2.0
// Looks behind the public headers: calls what nn/peer_function.cc calls, as it does.
#include "peer_kernels.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>

#include "nn/peer_function.h"
#include "nn/router.h"
#include "nn/token_threads.h"
#include "pool/pager.h"

namespace perennial::bench {
namespace {

const Router& router_of(PeerImpl& layer) {
  return dynamic_cast<const Router&>(*layer.children().front());
}

float* data(at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }

// As the layer does (nn/peer_function.cc).
void over_pinned_tokens(Pager& pager, kernels::ExpertArgs& args, std::int64_t tokens, PinUse use,
                        const std::function<void(std::int64_t, std::int64_t)>& work) {
  PagePin pin;
  for (std::int64_t begin = 0; begin < tokens;) {
    const std::int64_t end = pager.pin_tokens(args.ids, args.slots, begin, tokens, pin, use);
    args.frames = pager.table(storage::PageKind::weights);
    work(begin, end);
    begin = end;
  }
}

}  // namespace

Stages::Stages(PeerImpl& layer, const PeerSizes& sizes, const Batches& batches)
    : layer_(layer), sizes_(sizes) {
  const at::NoGradGuard no_grad;
  const std::int64_t slots = sizes.slots();
  const Router& router = router_of(layer);
  for (const at::Tensor& x : batches.all()) {
    const auto found = layer.retrieve(x, 0);
    const QueryResult query =
        compute_query(router, x, router.query, router.gamma, router.beta, false);
    batches_.push_back({.x = x,
                        .query = query.normed,
                        .ids = found.ids.reshape({-1, slots}),
                        .weights = found.weights.reshape({-1, slots}),
                        .pre = at::empty({x.size(0), slots})});
  }
  for (std::size_t i = 0; i < batches_.size(); ++i) experts_forward();  // fills pre
}

void Stages::project() {
  const at::NoGradGuard no_grad;
  const Router& router = router_of(layer_);
  (void)compute_query(router, next().x, router.query, router.gamma, router.beta, false);
}

void Stages::retrieve() {
  const at::NoGradGuard no_grad;
  const Router& router = router_of(layer_);
  (void)retrieve_experts(router, next().query);
}

kernels::ExpertArgs Stages::args(Batch& batch) const {
  kernels::ExpertArgs args;
  args.layout = layer_.pool().options().layout();
  args.slots = sizes_.slots();
  args.ids = batch.ids.const_data_ptr<std::int64_t>();
  args.weights = batch.weights.const_data_ptr<float>();
  args.x = batch.x.const_data_ptr<float>();
  return args;
}

void Stages::experts_forward() {
  Batch& batch = next();
  at::Tensor y = at::empty_like(batch.x);
  kernels::ExpertArgs with = args(batch);
  over_pinned_tokens(layer_.pool().pager(), with, batch.x.size(0), PinUse::read,
                     [&](auto begin, auto end) {
                       forward_experts(with, data(y), data(batch.pre), nullptr, begin, end);
                     });
}

void Stages::experts_backward() {
  Batch& batch = next();
  const at::Tensor dy = at::ones_like(batch.x);
  at::Tensor dx = at::empty_like(batch.x), dweights = at::empty_like(batch.weights);
  at::Tensor cu = at::empty_like(batch.weights), cv = at::empty_like(batch.weights);
  kernels::ExpertArgs with = args(batch);
  over_pinned_tokens(
      layer_.pool().pager(), with, batch.x.size(0), PinUse::again, [&](auto first, auto last) {
        over_experts_tokens(first, last, [&](auto begin, auto end) {
          kernels::experts_backward_tokens(with, batch.pre.const_data_ptr<float>(), nullptr,
                                           dy.const_data_ptr<float>(), data(dx), data(dweights),
                                           data(cu), data(cv), nullptr, begin, end);
        });
      });
}

double Stages::bytes() const {
  return static_cast<double>(batches_.front().ids.numel()) * sizes_.expert_bytes();
}

}  // namespace perennial::bench
