// SPDX-License-Identifier: Apache-2.0
// A PEER layer twice, with the same weights: ours, and by hand with eager LibTorch.
#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "bench_peer.h"
#include "perennial/core/peer.h"
#include "perennial/core/sparse_optimizer.h"

namespace perennial::bench {

// The learning rate of every optimizer here.
inline constexpr double kLearningRate = 1e-3;

// torch's fused Adam over dense parameters, on both sides.
class FusedAdam {
 public:
  explicit FusedAdam(std::vector<at::Tensor> tensors);
  void step();

 private:
  std::vector<at::Tensor> tensors_, m_, v_, steps_;
};

// What the eager layer has too: sub-keys per head, softmax, GELU, no norm of the query.
PeerOptions peer_options(const PeerSizes& sizes);

// The layer of the library. All its experts are in frames before anything is timed.
class OurSide {
 public:
  // The same values whatever the type of the experts, but for their rounding. `place` brings the
  // layer to a device; none: the CPU.
  explicit OurSide(const PeerSizes& sizes, kernels::WeightType type = kernels::WeightType::f32,
                   const std::function<void(PeerImpl&)>& place = {});

  const PeerSizes& sizes() const { return sizes_; }
  PeerImpl& layer() { return *layer_; }
  // Adam of the experts, with all moments in frames, and torch's fused one of the router.
  void attach_optimizer();
  bool trains() const { return sparse_.has_value(); }

  at::Tensor forward(const at::Tensor& x);  // evaluation, no gradient
  // Forward and backward of sum(y dy) for x and all parameters; gradients of the last time are
  // dropped. The experts' gradients wait on the pool's tape.
  void backward(const at::Tensor& x, const at::Tensor& dy);
  void step(const at::Tensor& x, const at::Tensor& dy);          // fused update
  void step_compact(const at::Tensor& x, const at::Tensor& dy);  // over a compact gradient
  void clear_gradients();
  SparseOptimizer& sparse() { return *sparse_; }

 private:
  void pin_all();  // not where a device has all experts

  PeerSizes sizes_;
  std::shared_ptr<PeerImpl> layer_;
  std::optional<SparseOptimizer> sparse_;
  std::unique_ptr<FusedAdam> dense_;
};

// The usual way: two matmul over the batch, top-k of each side and of the K x K sums, gathered rows
// of u and v, batched products. Gradients of u and v are sparse; their Adam has SparseAdam's
// semantics (lazy moments of the touched rows).
class EagerSide {
 public:
  // Copies the weights of ours. Inputs come to `device` if they are elsewhere.
  explicit EagerSide(OurSide& ours, const at::Device& device = at::kCPU);
  void attach_optimizer();
  bool trains() const { return dense_ != nullptr; }

  at::Tensor forward(const at::Tensor& x);  // no gradient
  void backward(const at::Tensor& x, const at::Tensor& dy);
  void step(const at::Tensor& x, const at::Tensor& dy);
  void clear_gradients();

  // Query projection and scores of rows and columns, (H, B, side) each; no top-k.
  std::pair<at::Tensor, at::Tensor> scores(const at::Tensor& x) const;
  // Experts (B, H, K), as row * side + col, and their scores.
  std::pair<at::Tensor, at::Tensor> retrieve(const at::Tensor& x) const;
  const at::Tensor& u() const { return u_; }  // (N, d)
  const at::Tensor& v() const { return v_; }

 private:
  struct Moments {
    at::Tensor m, v;
  };
  at::Tensor run(const at::Tensor& x) const;
  void update(at::Tensor& rows, Moments& moments) const;

  PeerSizes sizes_;
  at::Tensor query_, row_keys_, col_keys_, u_, v_;
  Moments u_moments_, v_moments_;
  std::int64_t steps_ = 0;
  std::unique_ptr<FusedAdam> dense_;
};

// Throw when the sides differ by more than rounding explains. Some tokens retrieve other experts:
// scores of neighbouring ranks that are equal but for rounding.
void require_equal_forward(OurSide& ours, EagerSide& eager, const at::Tensor& x,
                           double tolerance = 1e-3);
// After one step of both from equal weights.
void require_equal_step(OurSide& ours, EagerSide& eager, const at::Tensor& x);

}  // namespace perennial::bench
