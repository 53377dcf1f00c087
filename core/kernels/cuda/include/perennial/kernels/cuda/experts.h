// SPDX-License-Identifier: Apache-2.0
// Expert forward and backward on the device: perennial/kernels/experts.h states what is computed.
// Dot products add in the CPU's 16 virtual lanes and sums ascend by fused multiply-adds, so with
// ReLU or identity the results are the CPU's bit for bit; elsewhere they differ by the libraries'
// exp and erf. No (B, S, d) tensor exists. Symbols: B tokens, S slots a token, r neurons an expert.
#pragma once

#include <cstdint>

#include "perennial/kernels/activation.h"
#include "perennial/kernels/contribution.h"
#include "perennial/kernels/cuda/device.h"

namespace perennial::kernels::cuda {

struct ExpertArgs {
  ExpertLayout layout;
  Activation activation = Activation::gelu;
  Frames frames;                      // holds every expert named in ids
  std::int64_t slots = 0;             // S
  const std::int64_t* ids = nullptr;  // (B, S)
  const float* weights = nullptr;     // (B, S)
  const float* x = nullptr;           // (B, d_in)
};

// y (B, d_out), pre and gate (B, S, r; gate null without GLU) as the CPU's; coefficients: (B, S,
// r), scratch, overwritten. Loads are 16 bytes wide where d_in and d_out are multiples of 4 (fp32
// weights) or 8 (bf16) and x and y start at multiples of 16 bytes. Cost: reads the u (and w) and
// the v of each retrieved expert once per use.
Error experts_forward(const ExpertArgs& args, std::int64_t tokens, float* coefficients, float* y,
                      float* pre, float* gate, Stream stream);

// As the CPU's. dx null: not wanted.
Error experts_backward_tokens(const ExpertArgs& args, std::int64_t tokens, const float* pre,
                              const float* gate, const float* dy, float* dx, float* dweights,
                              float* cu, float* cv, float* cw, Stream stream);

// Weights from scores and dscores from dweights, both (B, H, K); dropout of n flat values.
Error score_forward(ScoreFunction function, std::int64_t heads, std::int64_t k, const float* scores,
                    float* weights, std::int64_t tokens, Stream stream);
Error score_backward(ScoreFunction function, std::int64_t heads, std::int64_t k,
                     const float* weights, const float* dweights, float* dscores,
                     std::int64_t tokens, Stream stream);
Error dropout(std::uint64_t seed, std::uint64_t draw, double p, const float* in, float* out,
              std::int64_t n, Stream stream);

}  // namespace perennial::kernels::cuda
