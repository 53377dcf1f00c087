// SPDX-License-Identifier: Apache-2.0
// From a query's scores to what its experts say, and the way back to the query and the sub-keys:
// the same maths wherever the kernels run.
// Symbols: B tokens, H heads, K top-k, S = H K slots, C = H d_key.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "nn/forward_mode.h"
#include "nn/router.h"
#include "perennial/core/pool.h"
#include "pool/expert_place.h"

namespace perennial {

// What retrieval finds for a query.
struct Retrieved {
  at::Tensor ids, scores, row_index;  // (B, S): int64, float32, int32 indices of row keys
};

// Which experts answer, and how much each counts.
struct Selection {
  at::Tensor ids, row_index;       // as retrieved
  at::Tensor weights, normalised;  // (B, S), after and before dropout; the latter with it only
};

// A query and the sub-keys as retrieval compared them, and what it found.
struct Scored {
  at::Tensor query, row_keys, col_keys;  // (B, C), (H or 1, n, d_key / 2)
  at::Tensor ids, row_index;
};

// The kernels of one kind of device. Tensors are contiguous, on that device, float32 unless said
// otherwise; what has the name of a gradient is written to. Single-threaded from outside.
class SelectionKernels {
 public:
  virtual ~SelectionKernels() = default;
  // The score function: (B, S) of (B, S).
  virtual at::Tensor weigh(const PeerOptions& options, const at::Tensor& scores) const = 0;
  // In a forward the weights of the experts that stay; in a backward, of their gradients, those
  // that reach the scores.
  virtual at::Tensor drop_out(const PeerOptions& options, std::uint64_t draw,
                              const at::Tensor& values) const = 0;
  // dscores (B, S) of the score function's weights and their gradients; from it dquery (B, C).
  virtual void backward_query(const PeerOptions& options, const Scored& scored,
                              const at::Tensor& weights, const at::Tensor& dweights,
                              at::Tensor& dscores, at::Tensor& dquery) const = 0;
  // Adds to drow_keys and dcol_keys, which have the sub-keys' shapes.
  virtual void backward_keys(const PeerOptions& options, const Scored& scored,
                             const at::Tensor& dscores, at::Tensor& drow_keys,
                             at::Tensor& dcol_keys) const = 0;
};

// What a forward and its backward need beside their tensors. The graph keeps it, and may outlive
// the layer.
struct LayerCall : torch::CustomClassHolder {
  // Throws Error where `tokens` are too few for the batch's statistics.
  LayerCall(std::shared_ptr<Router> router, std::shared_ptr<Pool> pool,
            std::shared_ptr<const SelectionKernels> kernels, const ForwardMode& mode,
            std::int64_t tokens);

  const PeerOptions& options() const { return router->options(); }

  std::shared_ptr<Router> router;
  std::shared_ptr<Pool> pool;
  std::shared_ptr<const SelectionKernels> kernels;
  ExpertsRead read;
  bool batch_statistics;
  std::optional<std::uint64_t> dropout_draw;
  Amp amp;
};

struct Answered {
  Selection selection;
  ExpertAnswer answer;
};
// Weighs what was retrieved for x (B, d_in), and asks the experts where they live.
Answered ask_experts(const LayerCall& call, const at::Tensor& x, const Retrieved& found);

// What a backward needs of its forward, in the order that autograd keeps it.
struct SavedSelection {
  static constexpr std::size_t kTensors = 10;
  static SavedSelection of(const std::vector<at::Tensor>& saved);  // the first kTensors
  std::vector<at::Tensor> tensors() const;

  at::Tensor x, query, row_keys, col_keys;
  Answered answered;  // y undefined
};

// Which gradients autograd asks for.
struct WantedGradients {
  bool x = false, keys = false, experts = false;
  bool any = false;  // but the experts'
};
// Of a function whose inputs begin with x and end with row keys, column keys, the experts' leaf at
// place `experts`, and the call.
WantedGradients wanted_gradients(torch::autograd::AutogradContext& ctx, std::size_t experts);
struct SelectionGradient {
  at::Tensor dx;                    // the experts' part of it, where wanted
  at::Tensor dquery;                // (B, C), defined where any is wanted
  at::Tensor drow_keys, dcol_keys;  // where wanted
};
// The experts' own gradients are left where they live. Throws Error for a second derivative, and
// after a step of the experts that were read.
SelectionGradient selection_backward(const LayerCall& call, const SavedSelection& saved,
                                     const at::Tensor& grad, const WantedGradients& wanted);

}  // namespace perennial
