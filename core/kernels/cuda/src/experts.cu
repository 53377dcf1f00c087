// SPDX-License-Identifier: Apache-2.0
// Expert forward and backward: dot products of a token with its neurons' rows, what the neurons
// make of them, and sums of rows. Three small kernels serve both directions.
#include "activation_math.h"
#include "expert_terms.h"
#include "launch.h"
#include "perennial/kernels/cuda/experts.h"

namespace perennial::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kGroups = kWarp / kDotThreads;  // dot products of a warp at once
// Neurons of a group of four threads: they share what is read of x. Fewer where the warps would be
// too few to fill a device.
constexpr int kManyNeurons = 4;
constexpr std::int64_t kManyWarps = 4096;
constexpr int kTermTile = 64;  // rows of a token whose places are in shared memory at once

// Where the neurons' rows are: `offset` of neuron 0's from the start of the record, in elements.
struct Rows {
  ExpertLayout layout;
  Frames frames;
  const std::int64_t* ids = nullptr;  // (B, S)
  std::int64_t slots = 0, neurons = 0, tokens = 0;
  std::int64_t n = 0;  // elements a row

  template <class W>
  __device__ const W* row(std::int64_t token, std::int64_t neuron, std::int64_t offset) const {
    std::int64_t slot = neuron, within = 0;
    if (layout.width > 1) {
      slot = neuron / layout.width;
      within = neuron % layout.width;
    }
    const float* record = frames.record(ids[token * slots + slot]);
    return reinterpret_cast<const W*>(record) + offset + within * n;
  }
};

struct DotArgs {
  Rows rows;
  const float* x = nullptr;  // (B, n)
  std::int64_t offset[2] = {};
  float* out[2] = {};  // (B, S, r)
};

// A warp a tile of kGroups * kNeurons neurons of one token; kSets rows a neuron.
template <class W, bool kWide, int kSets, int kNeurons>
__global__ void __launch_bounds__(kThreads) dots_kernel(DotArgs args, std::int64_t tiles) {
  const Rows& rows = args.rows;
  const std::int64_t warp = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;
  const std::int64_t token = warp / tiles, first = warp % tiles * (kGroups * kNeurons);
  if (token >= rows.tokens) return;  // the whole warp
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int group = lane / kDotThreads, q = lane % kDotThreads;
  const W* row[kSets * kNeurons];
#pragma unroll
  for (int m = 0; m < kNeurons; ++m) {
    std::int64_t neuron = first + m * kGroups + group;
    if (neuron >= rows.neurons) neuron = rows.neurons - 1;  // repeated, its result dropped
#pragma unroll
    for (int s = 0; s < kSets; ++s) {
      row[m * kSets + s] = rows.row<W>(token, neuron, args.offset[s]);
    }
  }
  float lanes[kSets * kNeurons][kLanesEach];
  dot_lanes<W, kWide>(q, rows.n, args.x + token * rows.n, row, lanes);
#pragma unroll
  for (int m = 0; m < kNeurons; ++m) {
    const std::int64_t neuron = first + m * kGroups + group;
#pragma unroll
    for (int s = 0; s < kSets; ++s) {
      const float dot = fold_lanes(lanes[m * kSets + s], [](float value, int distance) {
        return __shfl_xor_sync(0xFFFFFFFFu, value, distance);
      });
      if (q == 0 && neuron < rows.neurons) args.out[s][token * rows.neurons + neuron] = dot;
    }
  }
}

// A thread a neuron.
__global__ void __launch_bounds__(kThreads)
    coefficients_kernel(Activation activation, std::int64_t width, std::int64_t n,
                        const float* weights, const float* pre, const float* gate,
                        float* coefficients) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n) return;
  coefficients[i] = math::forward_coefficient(activation, weights[i / width], pre[i],
                                              gate == nullptr ? nullptr : gate + i);
}

// A thread a slot. cu holds t = v.dy before.
__global__ void __launch_bounds__(kThreads)
    neuron_gradients_kernel(Activation activation, std::int64_t width, std::int64_t n,
                            const float* weights, const float* pre, const float* gate,
                            float* dweights, float* cu, float* cv, float* cw) {
  const std::int64_t slot = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (slot >= n) return;
  const float weight = weights[slot];
  float dweight = 0;
  for (std::int64_t i = slot * width; i < (slot + 1) * width; ++i) {
    const float t = cu[i];
    const math::NeuronGradient gradient =
        math::neuron_gradient(activation, weight, t, pre[i], gate == nullptr ? nullptr : gate + i);
    dweight = i == slot * width ? t * gradient.hidden : fmaf(t, gradient.hidden, dweight);
    cu[i] = gradient.cu;
    cv[i] = gradient.cv;
    if (cw != nullptr) cw[i] = gradient.cw;
  }
  dweights[slot] = dweight;
}

struct SumArgs {
  Rows rows;
  int sets = 1;  // rows a neuron, added one after the other
  std::int64_t offset[2] = {};
  const float* factor[2] = {};  // (B, S, r)
  float* out = nullptr;         // (B, n)
};

// kPerToken threads a token, each kVector columns; grid: (tokens, chunks of columns).
template <class W, bool kWide, int kPerToken>
__global__ void __launch_bounds__(kThreads PERENNIAL_SM80_BLOCKS(5)) sums_kernel(SumArgs args) {
  constexpr int kTokens = kThreads / kPerToken;
  __shared__ Term<W> terms[kTokens][kTermTile];
  const Rows& rows = args.rows;
  const int local = static_cast<int>(threadIdx.x) / kPerToken;
  const int thread = static_cast<int>(threadIdx.x) % kPerToken;
  const std::int64_t token = std::int64_t{blockIdx.x} * kTokens + local;
  const std::int64_t at = (std::int64_t{blockIdx.y} * kPerToken + thread) * kVector<W>;
  const bool there = token < rows.tokens;
  const std::int64_t total = rows.neurons * args.sets;
  float sum[kVector<W>] = {};
  for (std::int64_t first = 0; first < total; first += kTermTile) {
    const int count = static_cast<int>(total - first < kTermTile ? total - first : kTermTile);
    for (int t = thread; there && t < count; t += kPerToken) {
      const std::int64_t neuron = (first + t) / args.sets;
      const bool second = (first + t) % args.sets != 0;
      const std::int64_t offset = second ? args.offset[1] : args.offset[0];
      const float* factor = second ? args.factor[1] : args.factor[0];
      terms[local][t] = {rows.row<W>(token, neuron, offset), factor[token * rows.neurons + neuron]};
    }
    __syncthreads();
    if (there && at < rows.n) add_rows<W, kWide>(terms[local], count, at, rows.n - at, sum);
    __syncthreads();
  }
  if (!there || at >= rows.n) return;
  float* out = args.out + token * rows.n + at;
  if constexpr (kWide) {
#pragma unroll
    for (int i = 0; i < kVector<W>; i += 4) {
      *reinterpret_cast<float4*>(out + i) = make_float4(sum[i], sum[i + 1], sum[i + 2], sum[i + 3]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kVector<W>; ++i) {
      if (at + i < rows.n) out[i] = sum[i];
    }
  }
}

template <class W, bool kWide, int kSets>
Error launch_dots(const DotArgs& args, Stream stream) {
  constexpr int kMany = kManyNeurons / kSets;
  const Rows& rows = args.rows;
  const std::int64_t few_tiles = blocks_for(rows.neurons, kGroups);
  const std::int64_t tiles = blocks_for(rows.neurons, std::int64_t{kGroups} * kMany);
  const bool many = rows.tokens * tiles >= kManyWarps;
  const std::int64_t warps = rows.tokens * (many ? tiles : few_tiles);
  const std::int64_t blocks = blocks_for(warps, kThreads / kWarp);
  if (blocks == 0) return 0;
  if (blocks > kMostBlocks) return kInvalidValue;
  const auto grid = static_cast<unsigned>(blocks);
  if (many) {
    dots_kernel<W, kWide, kSets, kMany><<<grid, kThreads, 0, stream>>>(args, tiles);
  } else {
    dots_kernel<W, kWide, kSets, 1><<<grid, kThreads, 0, stream>>>(args, few_tiles);
  }
  return last_error();
}

template <class W, bool kWide, int kPerToken>
Error launch_sums_of(const SumArgs& args, Stream stream) {
  const std::int64_t tokens = blocks_for(args.rows.tokens, kThreads / kPerToken);
  const std::int64_t chunks = blocks_for(args.rows.n, std::int64_t{kPerToken} * kVector<W>);
  if (tokens > kMostBlocks || chunks > 0xFFFF) return kInvalidValue;
  const dim3 grid(static_cast<unsigned>(tokens), static_cast<unsigned>(chunks));
  sums_kernel<W, kWide, kPerToken><<<grid, kThreads, 0, stream>>>(args);
  return last_error();
}

// One token a block where its columns keep every thread busy, or where there are few tokens.
template <class W, bool kWide>
Error launch_sums(const SumArgs& args, Stream stream) {
  const std::int64_t vectors = blocks_for(args.rows.n, kVector<W>);
  if (vectors <= 32) return launch_sums_of<W, kWide, 32>(args, stream);
  if (vectors <= 64) return launch_sums_of<W, kWide, 64>(args, stream);
  return launch_sums_of<W, kWide, 128>(args, stream);
}

// The type of the weights and the width of the loads, decided once for a call.
template <class Launch>
Error dispatch(const ExpertLayout& layout, bool aligned, Launch launch) {
  const std::int64_t vector = layout.type == WeightType::bf16 ? 8 : 4;
  const bool wide = aligned && layout.d_in % vector == 0 && layout.d_out % vector == 0;
  if (layout.type == WeightType::bf16) {
    return wide ? launch.template operator()<BFloat16, true>()
                : launch.template operator()<BFloat16, false>();
  }
  return wide ? launch.template operator()<float, true>()
              : launch.template operator()<float, false>();
}

struct LaunchDots {
  const DotArgs& args;
  int sets;
  Stream stream;
  template <class W, bool kWide>
  Error operator()() const {
    return sets == 2 ? launch_dots<W, kWide, 2>(args, stream)
                     : launch_dots<W, kWide, 1>(args, stream);
  }
};
struct LaunchSums {
  const SumArgs& args;
  Stream stream;
  template <class W, bool kWide>
  Error operator()() const {
    return launch_sums<W, kWide>(args, stream);
  }
};

Rows rows_of(const ExpertArgs& args, std::int64_t tokens, std::int64_t n) {
  Rows rows;
  rows.layout = args.layout;
  rows.frames = args.frames;
  rows.ids = args.ids;
  rows.slots = args.slots;
  rows.neurons = args.slots * args.layout.width;
  rows.tokens = tokens;
  rows.n = n;
  return rows;
}

bool servable(const ExpertArgs& args, std::int64_t tokens) {
  const ExpertLayout& layout = args.layout;
  return layout.d_in > 0 && layout.d_out > 0 && layout.width > 0 && args.slots >= 0 &&
         tokens >= 0 && tokens * args.slots * layout.width / kThreads < kMostBlocks;
}

unsigned grid_of(std::int64_t n) { return static_cast<unsigned>(blocks_for(n, kThreads)); }

}  // namespace

Error experts_forward(const ExpertArgs& args, std::int64_t tokens, float* coefficients, float* y,
                      float* pre, float* gate, Stream stream) {
  const ExpertLayout& layout = args.layout;
  if (!servable(args, tokens) || (gate != nullptr) != layout.glu) return kInvalidValue;
  if (tokens == 0) return 0;
  const bool aligned = aligned16(args.x) && aligned16(y);
  DotArgs dots;
  dots.rows = rows_of(args, tokens, layout.d_in);
  dots.x = args.x;
  dots.offset[0] = layout.u();
  dots.offset[1] = layout.w();
  dots.out[0] = pre;
  dots.out[1] = gate;
  const std::int64_t neurons = tokens * dots.rows.neurons;
  if (neurons > 0) {
    const LaunchDots launch{dots, layout.glu ? 2 : 1, stream};
    if (const Error error = dispatch(layout, aligned, launch); error != 0) return error;
    coefficients_kernel<<<grid_of(neurons), kThreads, 0, stream>>>(
        args.activation, layout.width, neurons, args.weights, pre, gate, coefficients);
    if (const Error error = last_error(); error != 0) return error;
  }
  SumArgs sums;
  sums.rows = rows_of(args, tokens, layout.d_out);
  sums.offset[0] = layout.v();
  sums.factor[0] = coefficients;
  sums.out = y;
  return dispatch(layout, aligned, LaunchSums{sums, stream});
}

Error experts_backward_tokens(const ExpertArgs& args, std::int64_t tokens, const float* pre,
                              const float* gate, const float* dy, float* dx, float* dweights,
                              float* cu, float* cv, float* cw, Stream stream) {
  const ExpertLayout& layout = args.layout;
  if (!servable(args, tokens) || (gate != nullptr) != layout.glu || (cw != nullptr) != layout.glu) {
    return kInvalidValue;
  }
  if (tokens == 0) return 0;
  DotArgs dots;
  dots.rows = rows_of(args, tokens, layout.d_out);
  dots.x = dy;
  dots.offset[0] = layout.v();
  dots.out[0] = cu;  // t, until neuron_gradients_kernel has used it
  const std::int64_t slots = tokens * args.slots;
  if (slots > 0) {
    const LaunchDots launch{dots, 1, stream};
    if (const Error error = dispatch(layout, aligned16(dy), launch); error != 0) return error;
    neuron_gradients_kernel<<<grid_of(slots), kThreads, 0, stream>>>(
        args.activation, layout.width, slots, args.weights, pre, gate, dweights, cu, cv, cw);
    if (const Error error = last_error(); error != 0) return error;
  }
  if (dx == nullptr) return 0;
  SumArgs sums;
  sums.rows = rows_of(args, tokens, layout.d_in);
  sums.sets = layout.glu ? 2 : 1;
  sums.offset[0] = layout.u();
  sums.offset[1] = layout.w();
  sums.factor[0] = cu;
  sums.factor[1] = cw;
  sums.out = dx;
  return dispatch(layout, aligned16(dx), LaunchSums{sums, stream});
}

}  // namespace perennial::kernels::cuda
