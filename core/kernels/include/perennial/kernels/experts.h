// SPDX-License-Identifier: Apache-2.0
// Expert forward and backward: y = sum over slots of g sum over neurons of act(u.x) [w.x] v, never
// materialising a (B, H K, d) tensor. Symbols: B tokens, S = H * K slots a token, r neurons an
// expert. Weights are fp32 or bf16 (ExpertLayout::type), promoted as they are read.
// Thread-safe for disjoint token ranges; nothing is allocated. Sums follow matmul.h's lanes or
// ascend by fused multiply-adds, so bits depend on neither the batch, nor the threads, nor the
// instruction set (exp and erf come from the C library, in double, rounded once to float).
#pragma once

#include <cstdint>
#include <span>

#include "perennial/kernels/activation.h"
#include "perennial/kernels/contribution.h"
#include "perennial/kernels/expert_id.h"

namespace perennial::kernels {

// act(x) and act'(x), in double inside; relu'(0) = 0. NaN gives NaN.
float activate(Activation activation, float x);
float activate_derivative(Activation activation, float x);

// weights = softmax over the K scores of each (token, head), or sigmoid, ReLU or identity of each.
// scores, weights: (B, H, K). Computed in double, rounded once. Tokens [begin, end).
void score_forward(ScoreFunction function, std::int64_t heads, std::int64_t k, const float* scores,
                   float* weights, std::int64_t begin, std::int64_t end);
// dscores from dweights; a ReLU's slope is 0 where its weight is 0.
void score_backward(ScoreFunction function, std::int64_t heads, std::int64_t k,
                    const float* weights, const float* dweights, float* dscores, std::int64_t begin,
                    std::int64_t end);

// Dropout of whole slots: out[i] = in[i] / (1 - p), or 0 with probability p, for i in [begin, end)
// of the flat (B, S). Slot i is dropped when word i % 4 of Philox's counter (i / 4, draw, lane),
// the draw in 64 bits, low word first, is below p 2^32; `lane` keeps apart what else the seed draws
// (philox.h). 0 <= p < 1; B S <= 2^34. A gradient passes the same way. in may be out.
void dropout(std::uint64_t seed, std::uint64_t draw, double p, const float* in, float* out,
             std::int64_t begin, std::int64_t end);

struct ExpertArgs {
  ExpertLayout layout;
  Activation activation = Activation::gelu;
  FrameTable frames;                  // must hold every expert named in ids of the tokens worked on
  std::int64_t slots = 0;             // S
  const std::int64_t* ids = nullptr;  // (B, S)
  const float* weights = nullptr;     // (B, S), g
  const float* x = nullptr;           // (B, d_in)
};

// y: (B, d_out), overwritten; neurons added in ascending order, slot by slot, by fused
// multiply-adds from 0. pre: (B, S, r), out: u.x (16 virtual lanes, as matmul_nt; of bf16 weights
// elements 2 i and 2 i + 1 of every 32 are lane i's); gate: (B, S, r),
// out: w.x, null without GLU. Tokens [begin, end).
void experts_forward(const ExpertArgs& args, float* y, float* pre, float* gate, std::int64_t begin,
                     std::int64_t end);

// One token of experts_forward shared out between threads, to the same bits: first the coefficients
// (S r) of its neurons, and pre and gate as above (S r, of this token), for groups [begin, end) of
// kNeuronGroup neurons out of expert_groups(args); then y (d_out, of this token) for columns
// [begin, end).
inline constexpr std::int64_t kNeuronGroup = 16;
std::int64_t expert_groups(const ExpertArgs& args);
void expert_coefficients(const ExpertArgs& args, std::int64_t token, float* pre, float* gate,
                         float* coefficients, std::int64_t begin, std::int64_t end);
void expert_sums(const ExpertArgs& args, std::int64_t token, const float* coefficients, float* y,
                 std::int64_t begin, std::int64_t end);

// The token side of the backward: with t = v.dy and h = act(pre) [gate] of a neuron,
//   dweights (B, S) = sum over the slot's neurons, ascending, of t h,
// and the coefficients of the expert side, (B, S, r) each,
//   cu = g t act'(pre) [gate],  cv = g h,  cw = g t act(pre)  (cw null without GLU).
//   dx: (B, d_in), overwritten: sum over neurons, ascending, of cu u [+ cw w]; null: not wanted.
// Tokens [begin, end).
void experts_backward_tokens(const ExpertArgs& args, const float* pre, const float* gate,
                             const float* dy, float* dx, float* dweights, float* cu, float* cv,
                             float* cw, std::int64_t begin, std::int64_t end);

// gradient: (stride) fp32, overwritten: the sum over `uses`, in order, of du = cu x, dv = cv dy,
// dw = cw x of every neuron.
void expert_gradient(const ExpertLayout& layout, std::span<const Contribution> contributions,
                     std::span<const Use> uses, float* gradient);

}  // namespace perennial::kernels
