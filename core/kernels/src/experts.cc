// SPDX-License-Identifier: Apache-2.0
// Expert forward and backward over paged experts, a group of slots at a time: while one part of the
// group's records is worked on, the lines of the next part are on their way to the cache.
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

constexpr int kGroup = static_cast<int>(kLanes);  // slots a group: one sum per lane
constexpr std::int64_t kLineFloats = 16;

// The records of a group; slots past the last repeat it (their results are dropped).
struct Group {
  std::int64_t count = 0;
  const float* u[kGroup] = {};
  const float* v[kGroup] = {};
  const float* w[kGroup] = {};
};

HWY_INLINE void find_group(const ExpertArgs& args, std::int64_t token, std::int64_t slot,
                           Group& group) {
  const std::int64_t left = args.slots - slot;
  group.count = left < kGroup ? left : kGroup;
  const std::int64_t* ids = args.ids + token * args.slots + slot;
  for (int g = 0; g < kGroup; ++g) {
    const float* record = args.frames.record(ids[g < group.count ? g : group.count - 1]);
    group.u[g] = record + args.layout.u();
    group.v[g] = record + args.layout.v();
    group.w[g] = record + args.layout.w();
  }
}

// The group after (token, slot), in this token or the next; the same group again at the end.
HWY_INLINE void find_next_group(const ExpertArgs& args, std::int64_t token, std::int64_t slot,
                                std::int64_t end, Group& group) {
  if (slot + kGroup < args.slots) {
    find_group(args, token, slot + kGroup, group);
  } else if (token + 1 < end) {
    find_group(args, token + 1, 0, group);
  }
}

HWY_INLINE void prefetch_line(const float* const (&rows)[kGroup], std::int64_t base) {
  HWY_UNROLL(16)
  for (int g = 0; g < kGroup; ++g) hwy::Prefetch(rows[g] + base);
}

// Lines [0, first_floats) of `first`, and the later lines of `second`.
struct TwoPrefetch {
  const float* const (&first)[kGroup];
  std::int64_t first_floats;
  const float* const (&second)[kGroup];
  HWY_INLINE void operator()(std::int64_t base) const {
    prefetch_line(base < first_floats ? first : second, base);
  }
};

// y[i] += sum over j < count, ascending, of c[j] rows[j][i], fused. `prefetch` as in block_sums.
template <class Prefetch>
HWY_INLINE void add_rows(std::int64_t n, std::int64_t count, const float* c,
                         const float* const* rows, float* y, Prefetch prefetch) {
  const FloatTag d;
  std::int64_t i = 0;
  for (; i + kLineFloats <= n; i += kLineFloats) {
    prefetch(i);
    Floats acc[kParts];
    for (std::int64_t p = 0; p < kParts; ++p) acc[p] = hn::LoadU(d, y + i + p * kLanes);
    for (std::int64_t j = 0; j < count; ++j) {
      const Floats factor = hn::Set(d, c[j]);
      for (std::int64_t p = 0; p < kParts; ++p) {
        acc[p] = fused_multiply_add(d, factor, hn::LoadU(d, rows[j] + i + p * kLanes), acc[p]);
      }
    }
    for (std::int64_t p = 0; p < kParts; ++p) hn::StoreU(acc[p], d, y + i + p * kLanes);
  }
  if (i < n) prefetch(i);
  for (; i < n; ++i) {
    for (std::int64_t j = 0; j < count; ++j) y[i] = std::fma(c[j], rows[j][i], y[i]);
  }
}

// out[g] = rows[g] . x
template <class Prefetch>
HWY_INLINE void dot_rows(std::int64_t n, const float* x, const float* const (&rows)[kGroup],
                         float* out, Prefetch prefetch) {
  const float* const one[1] = {x};
  hn::StoreU(block_sums<1, kGroup>(n, one, rows, prefetch), FloatTag(), out);
}

void experts_forward_target(const ExpertArgs& args, float* y, float* pre, float* gate,
                            std::int64_t begin, std::int64_t end) {
  const std::int64_t d_in = args.layout.d_in, d_out = args.layout.d_out;
  const bool glu = args.layout.glu;
  Group group, next;
  if (begin < end && args.slots > 0) find_group(args, begin, 0, next);
  for (std::int64_t token = begin; token < end; ++token) {
    const float* x = args.x + token * d_in;
    float* out = y + token * d_out;
    for (std::int64_t i = 0; i < d_out; ++i) out[i] = 0;
    for (std::int64_t slot = 0; slot < args.slots; slot += kGroup) {
      group = next;
      find_next_group(args, token, slot, end, next);
      const std::int64_t at = token * args.slots + slot;
      float dots[kGroup], gates[kGroup], coefficients[kGroup];
      if (glu) {
        dot_rows(d_in, x, group.u, dots, TwoPrefetch{group.w, d_in, group.w});
        dot_rows(d_in, x, group.w, gates, TwoPrefetch{group.v, d_out, next.u});
      } else {
        dot_rows(d_in, x, group.u, dots, TwoPrefetch{group.v, d_out, next.u});
      }
      for (std::int64_t g = 0; g < group.count; ++g) {
        pre[at + g] = dots[g];
        float hidden = activate(args.activation, dots[g]);
        if (glu) {
          gate[at + g] = gates[g];
          hidden *= gates[g];
        }
        coefficients[g] = args.weights[at + g] * hidden;
      }
      add_rows(d_out, group.count, coefficients, group.v, out, TwoPrefetch{next.u, d_in, next.v});
    }
  }
}

void experts_backward_tokens_target(const ExpertArgs& args, const float* pre, const float* gate,
                                    const float* dy, float* dx, float* dweights, float* cu,
                                    float* cv, float* cw, std::int64_t begin, std::int64_t end) {
  const std::int64_t d_in = args.layout.d_in, d_out = args.layout.d_out;
  const bool glu = args.layout.glu;
  Group group, next;
  if (begin < end && args.slots > 0) find_group(args, begin, 0, next);
  for (std::int64_t token = begin; token < end; ++token) {
    const float* grad = dy + token * d_out;
    float* out = dx == nullptr ? nullptr : dx + token * d_in;
    for (std::int64_t i = 0; i < d_in && out != nullptr; ++i) out[i] = 0;
    for (std::int64_t slot = 0; slot < args.slots; slot += kGroup) {
      group = next;
      find_next_group(args, token, slot, end, next);
      const std::int64_t at = token * args.slots + slot;
      float t[kGroup];
      dot_rows(d_out, grad, group.v, t, TwoPrefetch{group.u, d_in, next.v});
      const float* rows[2 * kGroup];
      float coefficients[2 * kGroup];
      std::int64_t count = 0;
      for (std::int64_t g = 0; g < group.count; ++g) {
        const float weight = args.weights[at + g];
        const float hidden = activate(args.activation, pre[at + g]);
        const float slope = activate_derivative(args.activation, pre[at + g]);
        const float scale = glu ? gate[at + g] : 1.0f;
        dweights[at + g] = t[g] * (hidden * scale);
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
        add_rows(d_in, count, coefficients, rows, out, TwoPrefetch{next.v, d_out, next.u});
      }
    }
  }
}

// kVectors vectors of out = sum over j < count, ascending, of c[j] rows[j], fused; from 0, or from
// what is there.
template <bool kFromZero, int kVectors>
HWY_INLINE void sum_vectors(std::int64_t at, std::int64_t count, const float* c,
                            const float* const* rows, float* out) {
  const FloatTag d;
  Floats acc[kVectors];
  for (int p = 0; p < kVectors; ++p) {
    acc[p] = kFromZero ? hn::Zero(d) : hn::LoadU(d, out + at + p * kLanes);
  }
  for (std::int64_t j = 0; j < count; ++j) {
    const Floats factor = hn::Set(d, c[j]);
    for (int p = 0; p < kVectors; ++p) {
      acc[p] = fused_multiply_add(d, factor, hn::LoadU(d, rows[j] + at + p * kLanes), acc[p]);
    }
  }
  for (int p = 0; p < kVectors; ++p) hn::StoreU(acc[p], d, out + at + p * kLanes);
}

template <bool kFromZero>
HWY_INLINE void sum_uses(std::int64_t n, std::int64_t count, const float* c,
                         const float* const* rows, float* out) {
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    sum_vectors<kFromZero, 4>(i, count, c, rows, out);
  }
  for (; i + kLanes <= n; i += kLanes) sum_vectors<kFromZero, 1>(i, count, c, rows, out);
  for (; i < n; ++i) {
    float sum = kFromZero ? 0.0f : out[i];
    for (std::int64_t j = 0; j < count; ++j) sum = std::fma(c[j], rows[j][i], sum);
    out[i] = sum;
  }
}

// Most experts of a step have one use; of those with many, this many are summed at once.
constexpr std::size_t kUses = 32;

template <bool kFromZero>
HWY_INLINE void add_uses(const ExpertLayout& layout, std::span<const Contribution> contributions,
                         std::span<const Use> uses, float* gradient) {
  const float* x[kUses];
  const float* dy[kUses];
  float cu[kUses], cv[kUses], cw[kUses];
  for (std::size_t j = 0; j < uses.size(); ++j) {
    const std::uint32_t position = uses[j].position;
    const Contribution& from = contributions[uses[j].contribution];
    const std::int64_t token = position / static_cast<std::uint32_t>(from.slots);
    x[j] = from.x + token * layout.d_in;
    dy[j] = from.dy + token * layout.d_out;
    cu[j] = from.cu[position];
    cv[j] = from.cv[position];
    if (layout.glu) cw[j] = from.cw[position];
  }
  const auto count = static_cast<std::int64_t>(uses.size());
  sum_uses<kFromZero>(layout.d_in, count, cu, x, gradient + layout.u());
  sum_uses<kFromZero>(layout.d_out, count, cv, dy, gradient + layout.v());
  if (layout.glu) sum_uses<kFromZero>(layout.d_in, count, cw, x, gradient + layout.w());
}

void expert_gradient_target(const ExpertLayout& layout, std::span<const Contribution> contributions,
                            std::span<const Use> uses, float* gradient) {
  add_uses<true>(layout, contributions, uses.first(std::min(uses.size(), kUses)), gradient);
  for (std::size_t at = kUses; at < uses.size(); at += kUses) {
    add_uses<false>(layout, contributions, uses.subspan(at, std::min(uses.size() - at, kUses)),
                    gradient);
  }
  for (std::int64_t i = layout.used(); i < layout.stride(); ++i) gradient[i] = 0;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(experts_forward_target);
HWY_EXPORT(experts_backward_tokens_target);
HWY_EXPORT(expert_gradient_target);

void experts_forward(const ExpertArgs& args, float* y, float* pre, float* gate, std::int64_t begin,
                     std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(experts_forward_target)(args, y, pre, gate, begin, end);
}

void experts_backward_tokens(const ExpertArgs& args, const float* pre, const float* gate,
                             const float* dy, float* dx, float* dweights, float* cu, float* cv,
                             float* cw, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(experts_backward_tokens_target)
  (args, pre, gate, dy, dx, dweights, cu, cv, cw, begin, end);
}

void expert_gradient(const ExpertLayout& layout, std::span<const Contribution> contributions,
                     std::span<const Use> uses, float* gradient) {
  HWY_DYNAMIC_DISPATCH(expert_gradient_target)(layout, contributions, uses, gradient);
}

}  // namespace perennial::kernels
#endif
