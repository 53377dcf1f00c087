// SPDX-License-Identifier: Apache-2.0
// Looks behind the public headers: calls what nn/peer_function.cc calls, as it does.
#include "peer_kernels.h"

#include <ATen/ops/ones_like.h>

#include "nn/host_selection.h"
#include "nn/peer_function.h"
#include "nn/router.h"

namespace perennial::bench {
namespace {

const Router& router_of(PeerImpl& layer) {
  return dynamic_cast<const Router&>(*layer.children().front());
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
    batches_.push_back(
        {.query = query.normed,
         .question = {found.ids.reshape({-1, slots}), found.weights.reshape({-1, slots}), x,
                      layer.options().activation},
         .answer = {}});
    batches_.back().answer = layer.pool().where().forward(batches_.back().question);
  }
}

void Stages::project() {
  const at::NoGradGuard no_grad;
  const Router& router = router_of(layer_);
  (void)compute_query(router, next().question.x, router.query, router.gamma, router.beta, false);
}

void Stages::retrieve() {
  const at::NoGradGuard no_grad;
  const Router& router = router_of(layer_);
  (void)retrieve_experts(router, next().query);
}

void Stages::experts_forward() { (void)layer_.pool().where().forward(next().question); }

void Stages::experts_backward() {
  const Batch& batch = next();
  const at::Tensor dy = at::ones_like(batch.question.x);
  (void)layer_.pool().where().backward(batch.question, batch.answer, dy, true);
}

double Stages::bytes() const {
  return static_cast<double>(batches_.front().question.ids.numel()) * sizes_.expert_bytes();
}

}  // namespace perennial::bench
