// SPDX-License-Identifier: Apache-2.0
// Gradients and updates of the experts: a block an expert, grid-stride over as many as the device
// counted.
#include "launch.h"
#include "perennial/kernels/bfloat16.h"
#include "perennial/kernels/cuda/optimizer.h"
#include "update_math.h"
#include "use_terms.h"

namespace perennial::kernels::cuda {
namespace {

using math::UpdateKind;

constexpr int kThreads = 128;
constexpr std::int64_t kMostGrid = 1 << 14;
constexpr int kStagedUses = 32;  // most experts of a step have one use
constexpr int kSumLanes = 16;    // of Adagrad's sums of squares

// N floats at p, in one access if N is 4 (p is 16-byte aligned then).
template <int N>
struct Floats {
  float at[N];
};
template <int N>
__device__ __forceinline__ Floats<N> load(const float* p) {
  Floats<N> out;
  if constexpr (N == 4) {
    const float4 four = *reinterpret_cast<const float4*>(p);
    out.at[0] = four.x;
    out.at[1] = four.y;
    out.at[2] = four.z;
    out.at[3] = four.w;
  } else {
    out.at[0] = *p;
  }
  return out;
}
template <int N>
__device__ __forceinline__ void store(const Floats<N>& values, float* p) {
  if constexpr (N == 4) {
    *reinterpret_cast<float4*>(p) =
        make_float4(values.at[0], values.at[1], values.at[2], values.at[3]);
  } else {
    *p = values.at[0];
  }
}

// The gradient of one expert, N elements at a time.
template <int N, bool kFromUses>
struct Gradient {
  const UpdateArgs& args;
  const UseRows* staged;  // shared: the first kStagedUses
  std::int64_t expert;

  __device__ __forceinline__ Floats<N> at(std::int64_t i) const {
    if constexpr (!kFromUses) {
      return load<N>(args.rows + expert * args.layout.used() + i);
    } else {
      const std::uint32_t begin = args.offsets[expert], end = args.offsets[expert + 1];
      const GradientElement element = gradient_element(args.layout, i);
      Floats<N> sum = {};
      const auto add = [&](const UseRows& use) {
        const float factor = coefficient_of(use, element);
        const Floats<N> row = load<N>(factors_of(use, element));
#pragma unroll
        for (int j = 0; j < N; ++j) sum.at[j] = fmaf(factor, row.at[j], sum.at[j]);
      };
      const std::uint32_t count = end - begin;
      const std::uint32_t first = count < kStagedUses ? count : kStagedUses;
      for (std::uint32_t use = 0; use < first; ++use) add(staged[use]);
      for (std::uint32_t use = first; use < count; ++use) {
        add(rows_of_use(args.layout, args.contributions, args.uses[begin + use]));
      }
      return sum;
    }
  }
};

// staged: the first uses of the expert. A barrier follows at the caller.
__device__ void stage_uses(const UpdateArgs& args, std::int64_t expert, UseRows* staged) {
  const std::uint32_t begin = args.offsets[expert], end = args.offsets[expert + 1];
  for (std::uint32_t use = threadIdx.x; use < kStagedUses && begin + use < end; use += blockDim.x) {
    staged[use] = rows_of_use(args.layout, args.contributions, args.uses[begin + use]);
  }
}

template <int N>
__global__ void __launch_bounds__(kThreads) compact_kernel(UpdateArgs args, float* rows) {
  __shared__ UseRows staged[kStagedUses];
  const std::int64_t used = args.layout.used();
  for (std::int64_t expert = blockIdx.x; expert < *args.experts; expert += gridDim.x) {
    stage_uses(args, expert, staged);
    __syncthreads();
    const Gradient<N, true> gradient{args, staged, expert};
    for (std::int64_t i = std::int64_t{threadIdx.x} * N; i < used; i += kThreads * N) {
      store(gradient.at(i), rows + expert * used + i);
    }
    __syncthreads();
  }
}

// What a block shares about its expert. Shared memory is not initialised.
struct Shared {
  UseRows staged[kStagedUses];
  float minus_rate, root_factor;  // math::AdamStep
  std::uint32_t t;
  float rate[3];
  float lanes[3][kSumLanes];
};

// The weights of an expert, in fp32: the record's, or the master's of a bf16 record, which before
// the first update is the promoted record.
struct Weights {
  float* values = nullptr;
  BFloat16* record = nullptr;  // null for fp32
  bool first = false;

  template <int N>
  __device__ __forceinline__ Floats<N> at(std::int64_t i) const {
    if (!first) return load<N>(values + i);
    Floats<N> out;
#pragma unroll
    for (int j = 0; j < N; ++j) out.at[j] = to_float(record[i + j]);
    return out;
  }
  template <int N>
  __device__ __forceinline__ void set(std::int64_t i, const Floats<N>& w) const {
    store(w, values + i);
    if (record == nullptr) return;
    struct alignas(2 * N) Rounded {
      std::uint16_t bits[N];
    } rounded;
#pragma unroll
    for (int j = 0; j < N; ++j) rounded.bits[j] = to_bfloat16(w.at[j]).bits;
    *reinterpret_cast<Rounded*>(record + i) = rounded;
  }
};

// Adagrad's rates of u, v and w: sums of squares in 16 lanes that fold by halves, as the CPU's.
// value(i): element i of the gradient.
template <class Value>
__device__ void adagrad_rates(const UpdateArgs& args, const math::RuleNumbers& rule,
                              const Weights& weights, float* counter, Shared& shared, Value value) {
  const ExpertLayout& layout = args.layout;
  const int sets = layout.glu ? 3 : 2;
  const int set = static_cast<int>(threadIdx.x) / kSumLanes, lane = threadIdx.x % kSumLanes;
  const auto begin_of = [&layout](int part) {
    return part == 0 ? layout.u() : part == 1 ? layout.v() : part == 2 ? layout.w() : layout.used();
  };
  if (set < sets) {
    float sum = 0;
    const std::int64_t end = begin_of(set + 1);
    for (std::int64_t i = begin_of(set) + lane; i < end; i += kSumLanes) {
      const float g = fmaf(rule.weight_decay, weights.at<1>(i).at[0], value(i));
      sum = fmaf(g, g, sum);
    }
    shared.lanes[set][lane] = sum;
  }
  __syncthreads();
  const int mine = static_cast<int>(threadIdx.x);
  if (mine < sets) {
    float* lanes = shared.lanes[mine];
    for (int half = kSumLanes / 2; half >= 1; half /= 2) {
      for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    }
    const auto n = static_cast<float>(begin_of(mine + 1) - begin_of(mine));
    const float sum = counter[1 + mine] + lanes[0] / n;
    counter[1 + mine] = sum;
    shared.rate[mine] = math::adagrad_rate(args.rule, sum);
  }
  __syncthreads();
}

template <UpdateKind kKind, int N, bool kFromUses>
__global__ void __launch_bounds__(kThreads PERENNIAL_SM80_SM90_BLOCKS(7))
    update_kernel(UpdateArgs args, math::RuleNumbers rule) {
  __shared__ Shared shared;
  extern __shared__ __align__(16) float kept[];  // the gradient, of Adagrad over uses
  constexpr std::int64_t kMoments = math::moments_of(kKind);
  const ExpertLayout& layout = args.layout;
  const std::int64_t used = layout.used(), stride = layout.stride();
  const bool master = layout.type == WeightType::bf16;
  const bool counted = kKind != UpdateKind::sgd || master;
  for (std::int64_t expert = blockIdx.x; expert < *args.experts; expert += gridDim.x) {
    const std::int64_t id = args.ids[expert];
    float* const record = args.weights.record(id);
    float* const state = counted ? args.state.record(id) : nullptr;
    float* const counter = state + kMoments * stride;
    if constexpr (kFromUses) stage_uses(args, expert, shared.staged);
    if (counted && threadIdx.x == 0) {
      shared.t = math::next_step(__float_as_uint(*counter));
      *counter = __uint_as_float(shared.t);
      if constexpr (kMoments == 2) {
        const math::AdamStep step = math::adam_step(args.rule, shared.t);
        shared.minus_rate = step.minus_rate;
        shared.root_factor = step.root_factor;
      }
    }
    __syncthreads();
    Weights weights{record, nullptr, false};
    if (master) {
      weights = {counter + math::kCounterFloats, reinterpret_cast<BFloat16*>(record),
                 shared.t == 1};
    }
    math::AdamStep step;
    if constexpr (kMoments == 2) step = {shared.minus_rate, shared.root_factor};
    const Gradient<N, kFromUses> gradient{args, shared.staged, expert};
    if constexpr (kKind == UpdateKind::adagrad) {
      if constexpr (kFromUses) {
        for (std::int64_t i = std::int64_t{threadIdx.x} * N; i < used; i += kThreads * N) {
          store(gradient.at(i), kept + i);
        }
        __syncthreads();
      }
      const float* const values = kFromUses ? kept : args.rows + expert * used;
      adagrad_rates(args, rule, weights, counter, shared,
                    [values](std::int64_t i) { return values[i]; });
    }
    for (std::int64_t i = std::int64_t{threadIdx.x} * N; i < used; i += kThreads * N) {
      Floats<N> g;
      if constexpr (kKind == UpdateKind::adagrad && kFromUses) {
        g = load<N>(kept + i);
      } else {
        g = gradient.at(i);
      }
      Floats<N> w = weights.at<N>(i), m = {}, v = {};
      if constexpr (kMoments >= 1) m = load<N>(state + i);
      if constexpr (kMoments == 2) v = load<N>(state + stride + i);
      float rate = 0;
      if constexpr (kKind == UpdateKind::adagrad)
        rate = shared.rate[gradient_element(layout, i).part];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        math::update_element<kKind>(rule, step, rate, g.at[j], w.at[j], m.at[j], v.at[j]);
      }
      if constexpr (kMoments >= 1) store(m, state + i);
      if constexpr (kMoments == 2) store(v, state + stride + i);
      weights.set(i, w);
    }
    if (weights.first) {  // the padding of the master is the record's, too
      for (std::int64_t i = used + threadIdx.x; i < stride; i += kThreads) {
        weights.values[i] = to_float(weights.record[i]);
      }
    }
    __syncthreads();  // before what is shared is of the next expert
  }
}

bool servable(const UpdateArgs& args, bool from_uses) {
  const ExpertLayout& layout = args.layout;
  if (layout.d_in <= 0 || layout.d_out <= 0 || layout.width <= 0 || args.most_experts < 0) {
    return false;
  }
  return !from_uses || (args.offsets != nullptr && args.uses != nullptr);
}

unsigned grid_of(const UpdateArgs& args) {
  return static_cast<unsigned>(args.most_experts < kMostGrid ? args.most_experts : kMostGrid);
}

// x and dy of contributions are not seen by the host: their rows are wide where their widths are,
// as long as the arrays start at multiples of 16 bytes, which the caller promises.
bool wide(const ExpertLayout& layout, const float* rows) {
  return layout.d_in % 4 == 0 && layout.d_out % 4 == 0 && aligned16(rows);
}

template <UpdateKind kKind, int N>
Error launch_of(const UpdateArgs& args, Stream stream) {
  const math::RuleNumbers rule(args.rule);
  if (args.rows != nullptr) {
    update_kernel<kKind, N, false><<<grid_of(args), kThreads, 0, stream>>>(args, rule);
    return last_error();
  }
  std::size_t shared = 0;
  if constexpr (kKind == UpdateKind::adagrad) {
    if (args.layout.used() > kMostAdagradFloats) return kInvalidValue;
    shared = static_cast<std::size_t>(args.layout.used()) * sizeof(float);
  }
  update_kernel<kKind, N, true><<<grid_of(args), kThreads, shared, stream>>>(args, rule);
  return last_error();
}

template <UpdateKind kKind>
Error launch(const UpdateArgs& args, Stream stream) {
  return wide(args.layout, args.rows) ? launch_of<kKind, 4>(args, stream)
                                      : launch_of<kKind, 1>(args, stream);
}

}  // namespace

Error compact_gradient(const UpdateArgs& args, float* rows, Stream stream) {
  if (args.most_experts == 0) return 0;
  if (!servable(args, true)) return kInvalidValue;
  if (wide(args.layout, rows)) {
    compact_kernel<4><<<grid_of(args), kThreads, 0, stream>>>(args, rows);
  } else {
    compact_kernel<1><<<grid_of(args), kThreads, 0, stream>>>(args, rows);
  }
  return last_error();
}

Error update_experts(const UpdateArgs& args, Stream stream) {
  if (args.most_experts == 0) return 0;  // with rows that are nowhere
  if (!servable(args, args.rows == nullptr)) return kInvalidValue;
  switch (math::kind_of(args.rule)) {
    case UpdateKind::sgd:
      return launch<UpdateKind::sgd>(args, stream);
    case UpdateKind::momentum:
      return launch<UpdateKind::momentum>(args, stream);
    case UpdateKind::adam:
      return launch<UpdateKind::adam>(args, stream);
    case UpdateKind::adamw:
      return launch<UpdateKind::adamw>(args, stream);
    case UpdateKind::adagrad:
      return launch<UpdateKind::adagrad>(args, stream);
  }
  return kInvalidValue;
}

}  // namespace perennial::kernels::cuda
