// SPDX-License-Identifier: Apache-2.0
// Score functions and dropout.
#include "activation_math.h"
#include "launch.h"
#include "perennial/kernels/cuda/experts.h"
#include "philox_math.h"

namespace perennial::kernels::cuda {
namespace {

constexpr int kThreads = 128;

__device__ std::int64_t thread_index() { return std::int64_t{blockIdx.x} * kThreads + threadIdx.x; }

// A thread a (token, head).
__global__ void __launch_bounds__(kThreads)
    score_kernel(ScoreFunction function, std::int64_t n, std::int64_t k, const float* scores,
                 float* weights) {
  const std::int64_t i = thread_index();
  if (i < n) math::score_row(function, k, scores + i * k, weights + i * k);
}

__global__ void __launch_bounds__(kThreads)
    score_backward_kernel(ScoreFunction function, std::int64_t n, std::int64_t k,
                          const float* weights, const float* dweights, float* dscores) {
  const std::int64_t i = thread_index();
  if (i >= n) return;
  math::score_row_backward(function, k, weights + i * k, dweights + i * k, dscores + i * k);
}

// A thread a block of Philox: four values.
__global__ void __launch_bounds__(kThreads)
    dropout_kernel(std::uint64_t seed, std::uint64_t draw, std::uint64_t threshold, float scale,
                   const float* in, float* out, std::int64_t n) {
  const std::int64_t block = thread_index();
  if (block * 4 >= n) return;
  std::uint32_t words[4] = {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(draw),
                            static_cast<std::uint32_t>(draw >> 32), math::kDropoutLane};
  math::philox(seed, words);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const std::int64_t i = block * 4 + j;
    if (i < n) out[i] = words[j] < threshold ? 0.0f : in[i] * scale;
  }
}

// Launches kernel<<<>>> over n threads; 0 of them is no launch.
template <class Launch>
Error over(std::int64_t n, Launch launch) {
  const std::int64_t blocks = blocks_for(n, kThreads);
  if (blocks > kMostBlocks) return kInvalidValue;
  if (blocks > 0) launch(static_cast<unsigned>(blocks));
  return last_error();
}

}  // namespace

Error score_forward(ScoreFunction function, std::int64_t heads, std::int64_t k, const float* scores,
                    float* weights, std::int64_t tokens, Stream stream) {
  if (k <= 0) return 0;
  const std::int64_t n = tokens * heads;
  return over(n, [&](unsigned grid) {
    score_kernel<<<grid, kThreads, 0, stream>>>(function, n, k, scores, weights);
  });
}

Error score_backward(ScoreFunction function, std::int64_t heads, std::int64_t k,
                     const float* weights, const float* dweights, float* dscores,
                     std::int64_t tokens, Stream stream) {
  if (k <= 0) return 0;
  const std::int64_t n = tokens * heads;
  return over(n, [&](unsigned grid) {
    score_backward_kernel<<<grid, kThreads, 0, stream>>>(function, n, k, weights, dweights,
                                                         dscores);
  });
}

Error dropout(std::uint64_t seed, std::uint64_t draw, double p, const float* in, float* out,
              std::int64_t n, Stream stream) {
  if (!(p >= 0 && p < 1)) return kInvalidValue;
  const auto threshold = static_cast<std::uint64_t>(p * 0x1p32);
  const auto scale = static_cast<float>(1 / (1 - p));
  return over(blocks_for(n, 4), [&](unsigned grid) {
    dropout_kernel<<<grid, kThreads, 0, stream>>>(seed, draw, threshold, scale, in, out, n);
  });
}

}  // namespace perennial::kernels::cuda
