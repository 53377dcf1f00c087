// SPDX-License-Identifier: Apache-2.0
// Where the experts of a pool live, and what is done with them there.
// Symbols: B tokens, S slots a token, r neurons an expert.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "perennial/core/pool.h"
#include "perennial/kernels/experts.h"
#include "perennial/kernels/optimizer.h"
#include "pool/tape.h"

namespace perennial {

// Which experts answer which tokens, and how much each counts.
struct ExpertQuestion {
  at::Tensor ids;      // (B, S) int64
  at::Tensor weights;  // (B, S)
  at::Tensor x;        // (B, d_in), contiguous
  kernels::Activation activation = kernels::Activation::gelu;
};

// What they say, and what a backward needs of it again.
struct ExpertAnswer {
  at::Tensor y;          // (B, d_out)
  at::Tensor pre, gate;  // (B, S r), before the activation; gate undefined without GLU
};

// Gradients of what was asked; cu, cv, cw are the coefficients that ExpertTape takes.
struct ExpertBackward {
  at::Tensor dx;          // (B, d_in), undefined where it was not wanted
  at::Tensor dweights;    // (B, S)
  at::Tensor cu, cv, cw;  // (B, S r); cw undefined without GLU
};

// Tensors that go in are on device(), contiguous float32, and so is what comes out. An expert's
// part of a sum depends on the ids alone, never on where else experts live: a place keeps the order
// of slots, and per-expert gradients add in (backward, token, slot) order.
//
// Generations and optimizer state that the pool got meanwhile are taken in by whoever needs them
// first; what has no room for them throws DeviceError, with the figures. Single-threaded from
// outside. May do I/O.
class ExpertPlace {
 public:
  virtual ~ExpertPlace() = default;

  virtual at::Device device() const = 0;
  // Takes in what the pool has and this has not yet.
  virtual void follow() = 0;
  // Brings the pages of the pool's pager up to date, which are as of the last time. Cost: O(experts
  // updated since).
  virtual void fetch() = 0;

  virtual ExpertAnswer forward(const ExpertQuestion& question) = 0;
  // wants_dx: whether dx is computed.
  virtual ExpertBackward backward(const ExpertQuestion& question, const ExpertAnswer& answer,
                                  const at::Tensor& dy, bool wants_dx) = 0;

  // The gradients that backward passes left; see Pool and SparseOptimizer.
  virtual void keep(ExpertTape::Entry entry) = 0;
  virtual CompactGradient compact_gradient() = 0;
  virtual void clear_gradients() = 0;
  // Gives the memory of the last compact gradient back.
  virtual void release_gradient_memory() = 0;
  // How many experts of the open generation a step updated: (1) int64, which need not be waited
  // for. Clears the gradients.
  virtual at::Tensor step(const kernels::UpdateRule& rule) = 0;
  virtual at::Tensor step(const kernels::UpdateRule& rule, const CompactGradient& gradient) = 0;
};

}  // namespace perennial
