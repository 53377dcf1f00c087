// SPDX-License-Identifier: Apache-2.0
// Expert forward and backward over paged experts, a group of neurons at a time: while one part of
// the group's records is worked on, the lines of the next part are on their way to the cache.
#include "perennial/kernels/experts.h"

#include <algorithm>

#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "experts.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {

constexpr int kGroup = static_cast<int>(kLanes);  // neurons a group: one sum per lane

// The records of a group of neurons, which follow each other slot by slot; those past the last
// repeat it (their results are dropped). W: type of the weights.
template <class W>
struct Group {
  std::int64_t count = 0;
  std::int64_t slot[kGroup] = {};  // of each neuron
  const W* u[kGroup] = {};
  const W* v[kGroup] = {};
  const W* w[kGroup] = {};
};

// `first`: number of the group's first neuron within the token.
template <class W>
HWY_INLINE void find_group(const ExpertArgs& args, std::int64_t token, std::int64_t first,
                           Group<W>& group) {
  const ExpertLayout& layout = args.layout;
  const std::int64_t left = args.slots * layout.width - first;
  group.count = left < kGroup ? left : kGroup;
  const std::int64_t* ids = args.ids + token * args.slots;
  std::int64_t slot = first, neuron = 0;
  if (layout.width > 1) {  // the division is worth a branch
    slot = first / layout.width;
    neuron = first % layout.width;
  }
  const auto* record = reinterpret_cast<const W*>(args.frames.record(ids[slot]));
  for (int g = 0; g < kGroup; ++g) {
    group.slot[g] = slot;
    group.u[g] = record + layout.u() + neuron * layout.d_in;
    group.v[g] = record + layout.v() + neuron * layout.d_out;
    group.w[g] = record + layout.w() + neuron * layout.d_in;
    if (g + 1 >= group.count) continue;
    if (++neuron == layout.width) {
      neuron = 0;
      record = reinterpret_cast<const W*>(args.frames.record(ids[++slot]));
    }
  }
}

// The group after (token, first), in this token or the next; the same group again at the end.
template <class W>
HWY_INLINE void find_next_group(const ExpertArgs& args, std::int64_t token, std::int64_t first,
                                std::int64_t end, Group<W>& group) {
  if (first + kGroup < args.slots * args.layout.width) {
    find_group(args, token, first + kGroup, group);
  } else if (token + 1 < end) {
    find_group(args, token + 1, 0, group);
  }
}

// Lines [0, first_size) of `first`, and the later lines of `second`; called for every block, which
// is a line.
template <class W>
struct TwoPrefetch {
  const W* const (&first)[kGroup];
  std::int64_t first_size;
  const W* const (&second)[kGroup];
  HWY_INLINE void operator()(std::int64_t base) const {
    static_assert(sizeof(W) * Weights<W>::kBlock == 64);
    const W* const* rows = base < first_size ? first : second;
    HWY_UNROLL(16)
    for (int g = 0; g < kGroup; ++g) hwy::Prefetch(rows[g] + base);
  }
};

// acc + the products of a and b, of each lane in ascending order.
template <class W>
HWY_INLINE Floats add_products(const Vectors<W>& a, const Vectors<W>& b, Floats acc) {
  for (std::int64_t i = 0; i < Weights<W>::kPerLane; ++i) {
    acc = fused_multiply_add(FloatTag(), a.v[i], b.v[i], acc);
  }
  return acc;
}

// y[i] += sum over j < count, ascending, of c[j] rows[j][i], fused. `prefetch` as TwoPrefetch.
template <class W, class Prefetch>
HWY_INLINE void add_rows(std::int64_t n, std::int64_t count, const float* c, const W* const* rows,
                         float* y, Prefetch prefetch) {
  constexpr std::int64_t kBlock = Weights<W>::kBlock, kStep = kLanes * Weights<W>::kPerLane;
  const FloatTag d;
  std::int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    prefetch(i);
    Vectors<W> acc[kParts];
    for (std::int64_t p = 0; p < kParts; ++p) acc[p] = load_values<W>(y + i + p * kStep);
    for (std::int64_t j = 0; j < count; ++j) {
      const Floats factor = hn::Set(d, c[j]);
      for (std::int64_t p = 0; p < kParts; ++p) {
        const Vectors<W> row = load_weights(rows[j] + i + p * kStep);
        for (std::int64_t h = 0; h < Weights<W>::kPerLane; ++h) {
          acc[p].v[h] = fused_multiply_add(d, factor, row.v[h], acc[p].v[h]);
        }
      }
    }
    for (std::int64_t p = 0; p < kParts; ++p) store_values(acc[p], y + i + p * kStep);
  }
  if (i < n) prefetch(i);
  for (; i < n; ++i) {
    for (std::int64_t j = 0; j < count; ++j) y[i] = std::fma(c[j], weight_at(rows[j], i), y[i]);
  }
}

// out[g] = rows[g] . x, in 16 virtual lanes as block_sums; of bf16, two neighbours share a lane.
template <class W, class Prefetch>
HWY_INLINE void dot_rows(std::int64_t n, const float* x, const W* const (&rows)[kGroup], float* out,
                         Prefetch prefetch) {
  constexpr std::int64_t kBlock = Weights<W>::kBlock, kStep = kLanes * Weights<W>::kPerLane;
  const FloatTag d;
  Floats part[kParts][kLanes];
  for (std::int64_t p = 0; p < kParts; ++p) {
    const std::int64_t offset = p * kStep;
    Floats acc[kLanes];
    HWY_UNROLL(16)
    for (int g = 0; g < kGroup; ++g) acc[g] = hn::Zero(d);
    std::int64_t base = 0;
    for (; base + kBlock <= n; base += kBlock) {
      if (p == 0) prefetch(base);
      const Vectors<W> factor = load_values<W>(x + base + offset);
      HWY_UNROLL(16)
      for (int g = 0; g < kGroup; ++g) {
        acc[g] = add_products<W>(factor, load_weights(rows[g] + base + offset), acc[g]);
      }
    }
    if (base < n) {
      // Also where nothing is left: adding zero turns -0 to 0, which every target has to do.
      const std::int64_t left = n - base - offset, at = left > 0 ? base + offset : 0;
      const Vectors<W> factor = load_values_tail<W>(x + at, left);
      HWY_UNROLL(16)
      for (int g = 0; g < kGroup; ++g) {
        acc[g] = add_products<W>(factor, load_weights_tail(rows[g] + at, left), acc[g]);
      }
    }
    HWY_UNROLL(16)
    for (int g = 0; g < kGroup; ++g) part[p][g] = acc[g];
  }
  for (std::int64_t half = kParts / 2; half >= 1; half /= 2) {
    for (std::int64_t p = 0; p < half; ++p) {
      HWY_UNROLL(16)
      for (int g = 0; g < kGroup; ++g) part[p][g] = hn::Add(part[p][g], part[p + half][g]);
    }
  }
  hn::StoreU(fold_lanes(part[0]), d, out);
}

// pre, gate and the factor of v of a group's neurons; `prefetch` runs beside the last dot product.
template <class W>
HWY_INLINE void neuron_values(const ExpertArgs& args, const float* x, const float* weights,
                              const Group<W>& group, TwoPrefetch<W> prefetch, float* pre,
                              float* gate, float* coefficients) {
  const std::int64_t d_in = args.layout.d_in;
  const bool glu = args.layout.glu;
  float dots[kGroup], gates[kGroup] = {};
  if (glu) {
    dot_rows(d_in, x, group.u, dots, TwoPrefetch<W>{group.w, d_in, group.w});
    dot_rows(d_in, x, group.w, gates, prefetch);
  } else {
    dot_rows(d_in, x, group.u, dots, prefetch);
  }
  for (std::int64_t g = 0; g < group.count; ++g) {
    pre[g] = dots[g];
    float hidden = activate(args.activation, dots[g]);
    if (glu) {
      gate[g] = gates[g];
      hidden *= gates[g];
    }
    coefficients[g] = weights[group.slot[g]] * hidden;
  }
}

template <class W>
void forward_of(const ExpertArgs& args, float* y, float* pre, float* gate, std::int64_t begin,
                std::int64_t end) {
  using Prefetch = TwoPrefetch<W>;
  const std::int64_t d_in = args.layout.d_in, d_out = args.layout.d_out;
  const std::int64_t neurons = args.slots * args.layout.width;
  Group<W> group, next;
  if (begin < end && neurons > 0) find_group(args, begin, 0, next);
  for (std::int64_t token = begin; token < end; ++token) {
    const float* x = args.x + token * d_in;
    const float* weights = args.weights + token * args.slots;
    float* out = y + token * d_out;
    for (std::int64_t i = 0; i < d_out; ++i) out[i] = 0;
    for (std::int64_t first = 0; first < neurons; first += kGroup) {
      group = next;
      find_next_group(args, token, first, end, next);
      const std::int64_t at = token * neurons + first;
      float coefficients[kGroup];
      neuron_values(args, x, weights, group, Prefetch{group.v, d_out, next.u}, pre + at,
                    gate == nullptr ? nullptr : gate + at, coefficients);
      add_rows(d_out, group.count, coefficients, group.v, out, Prefetch{next.u, d_in, next.v});
    }
  }
}

// Neurons [begin, end) of a token.
template <class W>
void coefficients_of(const ExpertArgs& args, std::int64_t token, float* pre, float* gate,
                     float* coefficients, std::int64_t begin, std::int64_t end) {
  const std::int64_t d_in = args.layout.d_in;
  const float* x = args.x + token * d_in;
  const float* weights = args.weights + token * args.slots;
  Group<W> group, next;
  if (begin < end) find_group(args, token, begin, next);
  for (std::int64_t first = begin; first < end; first += kGroup) {
    group = next;
    if (first + kGroup < end) find_group(args, token, first + kGroup, next);
    neuron_values(args, x, weights, group, TwoPrefetch<W>{next.u, d_in, next.u}, pre + first,
                  gate == nullptr ? nullptr : gate + first, coefficients + first);
  }
}

template <class W>
void sums_of(const ExpertArgs& args, std::int64_t token, const float* coefficients, float* y,
             std::int64_t begin, std::int64_t end) {
  const std::int64_t neurons = args.slots * args.layout.width, n = end - begin;
  const auto find = [&](std::int64_t first, Group<W>& group) {
    find_group(args, token, first, group);
    for (const W*& row : group.v) row += begin;
  };
  Group<W> group, next;
  if (neurons > 0) find(0, next);
  std::fill_n(y + begin, n, 0.0f);
  for (std::int64_t first = 0; first < neurons; first += kGroup) {
    group = next;
    if (first + kGroup < neurons) find(first + kGroup, next);
    add_rows(n, group.count, coefficients + first, group.v, y + begin,
             TwoPrefetch<W>{next.v, n, next.v});
  }
}

template <class W>
void backward_of(const ExpertArgs& args, const float* pre, const float* gate, const float* dy,
                 float* dx, float* dweights, float* cu, float* cv, float* cw, std::int64_t begin,
                 std::int64_t end) {
  using Prefetch = TwoPrefetch<W>;
  const std::int64_t d_in = args.layout.d_in, d_out = args.layout.d_out;
  const std::int64_t neurons = args.slots * args.layout.width;
  const bool glu = args.layout.glu;
  Group<W> group, next;
  if (begin < end && neurons > 0) find_group(args, begin, 0, next);
  for (std::int64_t token = begin; token < end; ++token) {
    const float* grad = dy + token * d_out;
    const float* weights = args.weights + token * args.slots;
    float* dg = dweights + token * args.slots;
    float* out = dx == nullptr ? nullptr : dx + token * d_in;
    for (std::int64_t i = 0; i < d_in && out != nullptr; ++i) out[i] = 0;
    std::int64_t last_slot = -1;
    for (std::int64_t first = 0; first < neurons; first += kGroup) {
      group = next;
      find_next_group(args, token, first, end, next);
      const std::int64_t at = token * neurons + first;
      float t[kGroup];
      dot_rows(d_out, grad, group.v, t, Prefetch{group.u, d_in, next.v});
      const W* rows[2 * kGroup];
      float coefficients[2 * kGroup];
      std::int64_t count = 0;
      for (std::int64_t g = 0; g < group.count; ++g) {
        const std::int64_t slot = group.slot[g];
        const float weight = weights[slot];
        const float hidden = activate(args.activation, pre[at + g]);
        const float slope = activate_derivative(args.activation, pre[at + g]);
        const float scale = glu ? gate[at + g] : 1.0f;
        dg[slot] =
            slot == last_slot ? std::fma(t[g], hidden * scale, dg[slot]) : t[g] * (hidden * scale);
        last_slot = slot;
        cu[at + g] = weight * t[g] * slope * scale;
        cv[at + g] = weight * (hidden * scale);
        rows[count] = group.u[g];
        coefficients[count++] = cu[at + g];
        if (glu) {
          cw[at + g] = weight * t[g] * hidden;
          rows[count] = group.w[g];
          coefficients[count++] = cw[at + g];
        }
      }
      if (out != nullptr) {
        add_rows(d_in, count, coefficients, rows, out, Prefetch{next.v, d_out, next.u});
      }
    }
  }
}

void experts_forward_target(const ExpertArgs& args, float* y, float* pre, float* gate,
                            std::int64_t begin, std::int64_t end) {
  const bool bf16 = args.layout.type == WeightType::bf16;
  (bf16 ? forward_of<BFloat16> : forward_of<float>)(args, y, pre, gate, begin, end);
}

void expert_coefficients_target(const ExpertArgs& args, std::int64_t token, float* pre, float* gate,
                                float* coefficients, std::int64_t begin, std::int64_t end) {
  const bool bf16 = args.layout.type == WeightType::bf16;
  const std::int64_t neurons = args.slots * args.layout.width;
  (bf16 ? coefficients_of<BFloat16>
        : coefficients_of<float>)(args, token, pre, gate, coefficients, begin * kNeuronGroup,
                                  std::min(end * kNeuronGroup, neurons));
}

void expert_sums_target(const ExpertArgs& args, std::int64_t token, const float* coefficients,
                        float* y, std::int64_t begin, std::int64_t end) {
  const bool bf16 = args.layout.type == WeightType::bf16;
  (bf16 ? sums_of<BFloat16> : sums_of<float>)(args, token, coefficients, y, begin, end);
}

void experts_backward_tokens_target(const ExpertArgs& args, const float* pre, const float* gate,
                                    const float* dy, float* dx, float* dweights, float* cu,
                                    float* cv, float* cw, std::int64_t begin, std::int64_t end) {
  const bool bf16 = args.layout.type == WeightType::bf16;
  (bf16 ? backward_of<BFloat16> : backward_of<float>)(args, pre, gate, dy, dx, dweights, cu, cv, cw,
                                                      begin, end);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(experts_forward_target);
HWY_EXPORT(expert_coefficients_target);
HWY_EXPORT(expert_sums_target);
HWY_EXPORT(experts_backward_tokens_target);

void experts_forward(const ExpertArgs& args, float* y, float* pre, float* gate, std::int64_t begin,
                     std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(experts_forward_target)(args, y, pre, gate, begin, end);
}

std::int64_t expert_groups(const ExpertArgs& args) {
  return (args.slots * args.layout.width + kNeuronGroup - 1) / kNeuronGroup;
}

void expert_coefficients(const ExpertArgs& args, std::int64_t token, float* pre, float* gate,
                         float* coefficients, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(expert_coefficients_target)
  (args, token, pre, gate, coefficients, begin, end);
}

void expert_sums(const ExpertArgs& args, std::int64_t token, const float* coefficients, float* y,
                 std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(expert_sums_target)(args, token, coefficients, y, begin, end);
}

void experts_backward_tokens(const ExpertArgs& args, const float* pre, const float* gate,
                             const float* dy, float* dx, float* dweights, float* cu, float* cv,
                             float* cw, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(experts_backward_tokens_target)
  (args, pre, gate, dy, dx, dweights, cu, cv, cw, begin, end);
}

}  // namespace perennial::kernels
#endif
