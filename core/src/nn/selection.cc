// SPDX-License-Identifier: Apache-2.0
// Scores, what is asked of the experts, and the way back.
#include "nn/selection.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <string>
#include <utility>

#include "perennial/core/error.h"

namespace perennial {

LayerCall::LayerCall(std::shared_ptr<Router> router_of, std::shared_ptr<Pool> pool_of,
                     std::shared_ptr<const SelectionKernels> kernels_of, const ForwardMode& mode,
                     std::int64_t tokens)
    : router(std::move(router_of)),
      pool(std::move(pool_of)),
      kernels(std::move(kernels_of)),
      read(*pool, mode),
      batch_statistics(router->batch_statistics(mode.training)),
      dropout_draw(mode.dropout_draw),
      amp(router->amp) {
  if (batch_statistics && tokens < 2) {
    throw Error("batch norm needs at least 2 tokens in training, not " + std::to_string(tokens));
  }
}

Answered ask_experts(const LayerCall& call, const at::Tensor& x, const Retrieved& found) {
  Answered answered;
  Selection& selection = answered.selection;
  selection = {found.ids, found.row_index, call.kernels->weigh(call.options(), found.scores), {}};
  if (call.dropout_draw) {
    selection.normalised = selection.weights;
    selection.weights =
        call.kernels->drop_out(call.options(), *call.dropout_draw, selection.normalised);
  }
  answered.answer =
      call.pool->where().forward({selection.ids, selection.weights, x, call.options().activation});
  return answered;
}

std::vector<at::Tensor> SavedSelection::tensors() const {
  const Selection& selection = answered.selection;
  return {x,
          query,
          row_keys,
          col_keys,
          selection.ids,
          selection.row_index,
          selection.weights,
          selection.normalised,
          answered.answer.pre,
          answered.answer.gate};
}

SavedSelection SavedSelection::of(const std::vector<at::Tensor>& saved) {
  return {saved[0],
          saved[1],
          saved[2],
          saved[3],
          {{saved[4], saved[5], saved[6], saved[7]}, {{}, saved[8], saved[9]}}};
}

WantedGradients wanted_gradients(torch::autograd::AutogradContext& ctx, std::size_t experts) {
  WantedGradients wanted;
  wanted.x = ctx.needs_input_grad(0);
  wanted.keys = ctx.needs_input_grad(experts - 2) || ctx.needs_input_grad(experts - 1);
  wanted.experts = ctx.needs_input_grad(experts);
  for (std::size_t input = 0; input < experts; ++input) wanted.any |= ctx.needs_input_grad(input);
  return wanted;
}

SelectionGradient selection_backward(const LayerCall& call, const SavedSelection& saved,
                                     const at::Tensor& grad, const WantedGradients& wanted) {
  TORCH_CHECK(!at::GradMode::is_enabled(),
              "the PEER layer has no second derivative: call backward without create_graph");
  call.read.require_unchanged(*call.pool);
  const PeerOptions& options = call.options();
  const Selection& selection = saved.answered.selection;
  ExpertPlace& place = call.pool->where();
  const at::Tensor dy = grad.contiguous();

  // Experts, the token side.
  const ExpertBackward experts =
      place.backward({selection.ids, selection.weights, saved.x, options.activation},
                     saved.answered.answer, dy, wanted.x);
  // Their own gradients wait for the optimizer. The caller may fill x and dy again before the
  // step (a buffer of micro-batches does), so what is kept has copies of what is not its own.
  if (wanted.experts && call.pool->open_generation()) {
    const at::Tensor own_dy = dy.is_same(grad) ? dy.clone() : dy;
    place.keep({selection.ids.size(1), selection.ids, saved.x.detach().clone(), own_dy, experts.cu,
                experts.cv, experts.cw});
  }
  SelectionGradient gradient{experts.dx, {}, {}, {}};
  if (!wanted.any) return gradient;

  // Scores, query and sub-keys.
  const at::Tensor dweights =
      call.dropout_draw ? call.kernels->drop_out(options, *call.dropout_draw, experts.dweights)
                        : experts.dweights;
  const Scored scored{rounded(saved.query, call.amp), rounded(saved.row_keys, call.amp),
                      rounded(saved.col_keys, call.amp), selection.ids, selection.row_index};
  at::Tensor dscores = at::empty_like(dweights);
  gradient.dquery = at::empty_like(saved.query);
  call.kernels->backward_query(options, scored,
                               call.dropout_draw ? selection.normalised : selection.weights,
                               dweights, dscores, gradient.dquery);
  if (wanted.keys) {
    call.router->keys_changed();
    gradient.drow_keys = at::zeros_like(saved.row_keys);
    gradient.dcol_keys = at::zeros_like(saved.col_keys);
    call.kernels->backward_keys(options, scored, dscores, gradient.drow_keys, gradient.dcol_keys);
  }
  return gradient;
}

}  // namespace perennial
