// SPDX-License-Identifier: Apache-2.0
// Update rules over paged experts: while one expert is updated, the lines of the next come in.
#include "perennial/kernels/optimizer.h"

#include "targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optimizer.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "lanes-inl.h"

#ifndef PERENNIAL_KERNELS_UPDATE_CONSTANTS_  // this file is compiled once per target
#define PERENNIAL_KERNELS_UPDATE_CONSTANTS_
#include <array>
#include <cmath>
#include <cstring>

#include "perennial/kernels/bfloat16.h"
#include "update_math.h"

namespace perennial::kernels {
namespace {

using math::adagrad_rate;
using math::adam_step;
using math::AdamStep;
using math::kCounterFloats;
using math::next_step;

constexpr std::int64_t kLineFloats = 16;

// The steps of the experts around have a few values of t only: remembers the last of each kind.
class AdamSteps {
 public:
  explicit AdamSteps(const UpdateRule& rule) : rule_(rule) {}
  const AdamStep& of(std::uint32_t t) {
    Entry& entry = entries_[t % entries_.size()];
    if (entry.t != t) {
      entry = {t, adam_step(rule_, t)};
    }
    return entry.step;
  }

 private:
  struct Entry {
    std::uint32_t t = 0;  // 0: empty
    AdamStep step;
  };
  const UpdateRule& rule_;
  std::array<Entry, 64> entries_;
};

// Where the first use of an expert's gradient is read, or the expert's row of gradients.
struct GradientRows {
  const float* x = nullptr;
  const float* dy = nullptr;
};

// Everything an update touches of one expert.
struct Expert {
  float* record = nullptr;   // in the page of weights
  float* weights = nullptr;  // the record, or the fp32 master of a bf16 one
  float* state = nullptr;
  GradientRows from;
};

bool has_master(const ExpertLayout& layout) { return layout.type == WeightType::bf16; }

Expert find_expert(const UpdateArgs& args, std::int64_t moments, bool has_state,
                   std::int64_t index) {
  const auto i = static_cast<std::size_t>(index);
  Expert expert;
  expert.record = expert.weights = args.weights.record(args.ids[i]);
  if (has_state) expert.state = args.state.record(args.ids[i]);
  if (has_master(args.layout)) {
    expert.weights = expert.state + moments * args.layout.stride() + kCounterFloats;
  }
  if (args.rows != nullptr) {
    expert.from.x = args.rows + index * args.layout.used();
    expert.from.dy = expert.from.x + args.layout.v();
  } else if (args.offsets[i] < args.offsets[i + 1]) {
    const Use& use = args.uses[args.offsets[i]];
    const Contribution& contribution = args.contributions[use.contribution];
    const std::int64_t token = use.position / static_cast<std::uint32_t>(contribution.slots);
    expert.from.x = contribution.x + token * args.layout.d_in;
    expert.from.dy = contribution.dy + token * args.layout.d_out;
    const std::int64_t at = use.position * args.layout.width;
    hwy::Prefetch(contribution.cu + at);
    hwy::Prefetch(contribution.cv + at);
  } else {
    expert.from.x = expert.weights;
    expert.from.dy = expert.weights;
  }
  return expert;
}

std::uint32_t count_step(float* counter) {
  std::uint32_t t = 0;
  std::memcpy(&t, counter, sizeof(t));
  t = next_step(t);
  std::memcpy(counter, &t, sizeof(t));
  return t;
}

}  // namespace
}  // namespace perennial::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace perennial::kernels {
namespace HWY_NAMESPACE {
namespace {

// Each rule has `kMoments`, the vectors of state of an expert's size; begin(), once per expert,
// with its t, before its elements; and operator(), for the elements at i.

template <class D>
HWY_INLINE auto decayed(D d, float weight_decay, const float* weights, const float* gradient) {
  return fused_multiply_add(d, hn::Set(d, weight_decay), hn::LoadU(d, weights),
                            hn::LoadU(d, gradient));
}

struct Sgd {
  static constexpr std::int64_t kMoments = 0;
  explicit Sgd(const UpdateArgs& args)
      : minus_lr(static_cast<float>(-args.rule.lr)),
        weight_decay(static_cast<float>(args.rule.weight_decay)) {}
  void begin(const float*, const float*, float*, std::uint32_t) {}
  template <class D>
  HWY_INLINE void operator()(D d, std::int64_t i, const float* gradient, float* weights, float*) {
    const auto g = decayed(d, weight_decay, weights + i, gradient + i);
    const auto w = hn::LoadU(d, weights + i);
    hn::StoreU(fused_multiply_add(d, hn::Set(d, minus_lr), g, w), d, weights + i);
  }
  float minus_lr, weight_decay;
};

struct Momentum {
  static constexpr std::int64_t kMoments = 1;
  explicit Momentum(const UpdateArgs& args)
      : nesterov(args.rule.nesterov),
        momentum(static_cast<float>(args.rule.momentum)),
        minus_lr(static_cast<float>(-args.rule.lr)),
        weight_decay(static_cast<float>(args.rule.weight_decay)) {}
  void begin(const float*, const float*, float*, std::uint32_t) {}
  template <class D>
  HWY_INLINE void operator()(D d, std::int64_t i, const float* gradient, float* weights,
                             float* state) {
    const auto g = decayed(d, weight_decay, weights + i, gradient + i);
    const auto mu = hn::Set(d, momentum);
    const auto b = fused_multiply_add(d, mu, hn::LoadU(d, state + i), g);
    const auto direction = nesterov ? fused_multiply_add(d, mu, b, g) : b;
    const auto w = hn::LoadU(d, weights + i);
    hn::StoreU(b, d, state + i);
    hn::StoreU(fused_multiply_add(d, hn::Set(d, minus_lr), direction, w), d, weights + i);
  }
  bool nesterov;
  float momentum, minus_lr, weight_decay;
};

template <bool kDecoupled>
struct Adam {
  static constexpr std::int64_t kMoments = 2;
  explicit Adam(const UpdateArgs& args)
      : n(args.layout.stride()),
        beta1(static_cast<float>(args.rule.beta1)),
        one_minus_beta1(static_cast<float>(1 - args.rule.beta1)),
        beta2(static_cast<float>(args.rule.beta2)),
        one_minus_beta2(static_cast<float>(1 - args.rule.beta2)),
        eps(static_cast<float>(args.rule.eps)),
        weight_decay(static_cast<float>(args.rule.weight_decay)),
        keep(static_cast<float>(1 - args.rule.lr * args.rule.weight_decay)),
        steps(args.rule) {}
  void begin(const float*, const float*, float*, std::uint32_t t) { step = steps.of(t); }
  template <class D>
  HWY_INLINE void operator()(D d, std::int64_t i, const float* gradient, float* weights,
                             float* state) {
    float* m = state + i;
    float* v = m + n;
    auto w = hn::LoadU(d, weights + i);
    auto g = hn::LoadU(d, gradient + i);
    if constexpr (kDecoupled) {
      w = hn::Mul(hn::Set(d, keep), w);
    } else {
      g = fused_multiply_add(d, hn::Set(d, weight_decay), w, g);
    }
    const auto m1 = fused_multiply_add(d, hn::Set(d, beta1), hn::LoadU(d, m),
                                       hn::Mul(hn::Set(d, one_minus_beta1), g));
    const auto v1 = fused_multiply_add(d, hn::Set(d, beta2), hn::LoadU(d, v),
                                       hn::Mul(hn::Mul(hn::Set(d, one_minus_beta2), g), g));
    const auto denominator =
        fused_multiply_add(d, hn::Sqrt(v1), hn::Set(d, step.root_factor), hn::Set(d, eps));
    hn::StoreU(m1, d, m);
    hn::StoreU(v1, d, v);
    hn::StoreU(fused_multiply_add(d, hn::Set(d, step.minus_rate), hn::Div(m1, denominator), w), d,
               weights + i);
  }
  std::int64_t n;
  float beta1, one_minus_beta1, beta2, one_minus_beta2, eps, weight_decay, keep;
  AdamSteps steps;
  AdamStep step;
};

// Sum of the squares of g[i] + weight_decay w[i], in 16 virtual lanes that fold by halves.
float square_sum(std::int64_t n, float weight_decay, const float* weights, const float* gradient) {
  const FloatTag d;
  HWY_ALIGN float lanes[kVirtualLanes];
  const Floats decay = hn::Set(d, weight_decay);
  for (std::int64_t p = 0; p < kParts; ++p) {
    Floats sum = hn::Zero(d);
    for (std::int64_t i = p * kLanes; i < n; i += kVirtualLanes) {
      const Floats g = fused_multiply_add(d, decay, load_tail(weights + i, n - i),
                                          load_tail(gradient + i, n - i));
      sum = fused_multiply_add(d, g, g, sum);
    }
    hn::Store(sum, d, lanes + p * kLanes);
  }
  for (std::int64_t half = kVirtualLanes / 2; half >= 1; half /= 2) {
    for (std::int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

struct RowwiseAdagrad {
  static constexpr std::int64_t kMoments = 0;
  explicit RowwiseAdagrad(const UpdateArgs& args)
      : layout(args.layout),
        update_rule(args.rule),
        weight_decay(static_cast<float>(args.rule.weight_decay)) {}
  void begin(const float* gradient, const float* weights, float* state, std::uint32_t) {
    const auto row = [&](std::int64_t at, std::int64_t n, float& sum) {
      sum += square_sum(n, weight_decay, weights + at, gradient + at) / static_cast<float>(n);
      return adagrad_rate(update_rule, sum);
    };
    minus_rate[0] = row(layout.u(), layout.v() - layout.u(), state[1]);
    minus_rate[1] = row(layout.v(), layout.w() - layout.v(), state[2]);
    if (layout.glu) minus_rate[2] = row(layout.w(), layout.used() - layout.w(), state[3]);
  }
  template <class D>
  HWY_INLINE void operator()(D d, std::int64_t i, const float* gradient, float* weights, float*) {
    const auto g = decayed(d, weight_decay, weights + i, gradient + i);
    const auto w = hn::LoadU(d, weights + i);
    hn::StoreU(fused_multiply_add(d, rates(d, i), g, w), d, weights + i);
  }
  // The rates of elements [i, i + lanes).
  template <class D>
  HWY_INLINE auto rates(D d, std::int64_t i) const {
    const auto row = [this](std::int64_t at) { return (at >= layout.v()) + (at >= layout.w()); };
    const auto last = i + static_cast<std::int64_t>(hn::MaxLanes(d)) - 1;
    if (row(i) == row(last)) return hn::Set(d, minus_rate[row(i)]);
    HWY_ALIGN float lanes[kVirtualLanes];
    for (std::int64_t at = i; at <= last; ++at) lanes[at - i] = minus_rate[row(at)];
    return hn::Load(d, lanes);
  }
  ExpertLayout layout;
  UpdateRule update_rule;
  float weight_decay;
  float minus_rate[3] = {};  // of u, v, w
};

template <class Rule>
void update(const UpdateArgs& args, std::int64_t begin, std::int64_t end, float* scratch) {
  const ExpertLayout& layout = args.layout;
  const std::int64_t n = layout.used(), stride = layout.stride();
  const std::int64_t counter = Rule::kMoments * stride;
  const bool has_state = update_state_floats(args.rule, layout) > 0;
  const bool master = has_master(layout);
  const auto find = [&](std::int64_t index) {
    return find_expert(args, Rule::kMoments, has_state, index);
  };
  Rule rule(args);
  Expert expert, next;
  if (begin < end) next = find(begin);
  for (std::int64_t index = begin; index < end; ++index) {
    expert = next;
    if (index + 1 < end) next = find(index + 1);
    const float* gradient = expert.from.x;
    if (args.rows == nullptr) {
      const auto i = static_cast<std::size_t>(index);
      expert_gradient(layout, args.contributions,
                      args.uses.subspan(args.offsets[i], args.offsets[i + 1] - args.offsets[i]),
                      scratch);
      gradient = scratch;
    }
    std::uint32_t t = 0;
    if (has_state) {
      t = count_step(expert.state + counter);
      hwy::Prefetch(next.state + counter);
    }
    if (master && t == 1) {  // the first update: the master is the promoted weight
      promote(stride, reinterpret_cast<const BFloat16*>(expert.record), expert.weights);
    }
    rule.begin(gradient, expert.weights, expert.state, t);
    std::int64_t i = 0;
    for (; i + kLineFloats <= n; i += kLineFloats) {
      hwy::Prefetch(next.weights + i);
      if (master) hwy::Prefetch(next.record + i / 2);
      for (std::int64_t k = 0; k < Rule::kMoments; ++k) hwy::Prefetch(next.state + k * stride + i);
      if (i < layout.d_in) {
        hwy::Prefetch(next.from.x + i);
      } else if (i < layout.d_in + layout.d_out) {
        hwy::Prefetch(next.from.dy + (i - layout.d_in));
      }
      for (std::int64_t p = 0; p < kLineFloats; p += kLanes) {
        rule(FloatTag(), i + p, gradient, expert.weights, expert.state);
      }
    }
    for (; i < n; ++i) rule(OneTag(), i, gradient, expert.weights, expert.state);
    if (master) {
      round_to_bfloat16(stride, expert.weights, reinterpret_cast<BFloat16*>(expert.record));
    }
  }
}

void update_target(const UpdateArgs& args, std::int64_t begin, std::int64_t end, float* scratch) {
  switch (args.rule.algorithm) {
    case UpdateAlgorithm::sgd:
      return args.rule.momentum > 0 ? update<Momentum>(args, begin, end, scratch)
                                    : update<Sgd>(args, begin, end, scratch);
    case UpdateAlgorithm::adam:
      return update<Adam<false>>(args, begin, end, scratch);
    case UpdateAlgorithm::adamw:
      return update<Adam<true>>(args, begin, end, scratch);
    case UpdateAlgorithm::rowwise_adagrad:
      return update<RowwiseAdagrad>(args, begin, end, scratch);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace perennial::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace perennial::kernels {

HWY_EXPORT(update_target);

std::int64_t update_state_floats(const UpdateRule& rule, const ExpertLayout& layout) {
  std::int64_t moments = 0;
  bool counted = true;  // has the 16 floats
  switch (rule.algorithm) {
    case UpdateAlgorithm::sgd:
      moments = rule.momentum > 0 ? 1 : 0;
      counted = moments > 0;
      break;
    case UpdateAlgorithm::adam:
    case UpdateAlgorithm::adamw:
      moments = 2;
      break;
    case UpdateAlgorithm::rowwise_adagrad:
      break;
  }
  const std::int64_t vectors = moments + (has_master(layout) ? 1 : 0);
  return vectors * layout.stride() + (counted || vectors > 0 ? kCounterFloats : 0);
}

void update_experts(const UpdateArgs& args, std::int64_t begin, std::int64_t end, float* scratch) {
  HWY_DYNAMIC_DISPATCH(update_target)(args, begin, end, scratch);
}

}  // namespace perennial::kernels
#endif
