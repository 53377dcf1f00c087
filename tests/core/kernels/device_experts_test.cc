// SPDX-License-Identifier: Apache-2.0
// What the threads of the CUDA expert and optimizer kernels do, run on the host and compared with
// the CPU kernels bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "activation_math.h"
#include "expert_pool.h"
#include "expert_terms.h"
#include "perennial/kernels/philox.h"
#include "philox_math.h"
#include "update_math.h"
#include "update_pool.h"
#include "use_terms.h"

namespace perennial::kernels {
namespace {

// A dot product by four threads of a warp.
template <class W, bool kWide>
float device_dot(std::int64_t n, const float* x, const W* row) {
  float lanes[cuda::kDotThreads][1][cuda::kLanesEach];
  const W* const rows[1] = {row};
  for (int q = 0; q < cuda::kDotThreads; ++q) cuda::dot_lanes<W, kWide>(q, n, x, rows, lanes[q]);
  // What the shuffles of thread 0 bring: first the others' lanes, then their sums.
  int calls = 0, first = 0;
  return cuda::fold_lanes(lanes[0][0], [&](float, int distance) {
    const int l = calls % cuda::kLanesEach;
    if (calls++ < cuda::kLanesEach) {
      first = distance;
      return lanes[distance][0][l];
    }
    return lanes[distance][0][l] + lanes[distance ^ first][0][l];
  });
}

// Sums of rows, tile by tile as sums_kernel takes them.
template <class W, bool kWide>
std::vector<float> device_sum(std::int64_t n, const std::vector<cuda::Term<W>>& terms) {
  constexpr std::size_t kTile = 64;
  std::vector<float> out(static_cast<std::size_t>(n), 9.0f);
  for (std::int64_t at = 0; at < n; at += cuda::kVector<W>) {
    float sum[cuda::kVector<W>] = {};
    for (std::size_t first = 0; first < terms.size(); first += kTile) {
      const int count = static_cast<int>(std::min(kTile, terms.size() - first));
      cuda::add_rows<W, kWide>(terms.data() + first, count, at, n - at, sum);
    }
    for (int i = 0; i < cuda::kVector<W> && at + i < n; ++i) {
      out[static_cast<std::size_t>(at + i)] = sum[i];
    }
  }
  return out;
}

template <class W>
const W* neuron_row(const ExpertPool& pool, std::int64_t token, std::int64_t neuron,
                    std::int64_t offset, std::int64_t n) {
  const std::int64_t width = pool.shape.layout.width;
  const std::int64_t id =
      pool.ids[static_cast<std::size_t>(token * pool.shape.slots + neuron / width)];
  return reinterpret_cast<const W*>(pool.args().frames.record(id)) + offset + neuron % width * n;
}

template <class W>
void expect_experts_agree(const ExpertCase& shape) {
  ExpertPool pool(shape);
  pool.forward(0, shape.tokens);
  pool.backward(0, shape.tokens);
  const ExpertLayout& layout = shape.layout;
  const std::int64_t neurons = shape.slots * layout.width;
  for (std::int64_t t = 0; t < shape.tokens; ++t) {
    const float* x = pool.x.data() + t * layout.d_in;
    const float* dy = pool.dy.data() + t * layout.d_out;
    std::vector<cuda::Term<W>> forward, backward;
    std::vector<float> dweights(static_cast<std::size_t>(shape.slots));
    for (std::int64_t n = 0; n < neurons; ++n) {
      const auto at = static_cast<std::size_t>(t * neurons + n);
      const std::int64_t slot = n / layout.width;
      const float weight = pool.weights[static_cast<std::size_t>(t * shape.slots + slot)];
      const W* u = neuron_row<W>(pool, t, n, layout.u(), layout.d_in);
      const W* v = neuron_row<W>(pool, t, n, layout.v(), layout.d_out);
      const W* w = neuron_row<W>(pool, t, n, layout.w(), layout.d_in);
      const float pre = device_dot<W, false>(layout.d_in, x, u);
      ASSERT_EQ(pre, pool.pre[at]) << "neuron " << n;
      float gate = 1;
      if (layout.glu) {
        gate = device_dot<W, false>(layout.d_in, x, w);
        ASSERT_EQ(gate, pool.gate[at]);
      }
      const float* gate_or_null = layout.glu ? &gate : nullptr;
      forward.push_back(
          {v, math::forward_coefficient(shape.activation, weight, pre, gate_or_null)});
      const float dot = device_dot<W, false>(layout.d_out, dy, v);
      const math::NeuronGradient gradient =
          math::neuron_gradient(shape.activation, weight, dot, pre, gate_or_null);
      ASSERT_EQ(gradient.cu, pool.cu[at]);
      ASSERT_EQ(gradient.cv, pool.cv[at]);
      float& dweight = dweights[static_cast<std::size_t>(slot)];
      dweight =
          n % layout.width == 0 ? dot * gradient.hidden : std::fma(dot, gradient.hidden, dweight);
      backward.push_back({u, gradient.cu});
      if (layout.glu) {
        ASSERT_EQ(gradient.cw, pool.cw[at]);
        backward.push_back({w, gradient.cw});
      }
    }
    const auto part = [t](const std::vector<float>& values, std::int64_t n) {
      return std::span(values).subspan(static_cast<std::size_t>(t * n),
                                       static_cast<std::size_t>(n));
    };
    expect_same_bits(device_sum<W, false>(layout.d_out, forward), part(pool.y, layout.d_out));
    expect_same_bits(device_sum<W, false>(layout.d_in, backward), part(pool.dx, layout.d_in));
    expect_same_bits(dweights, part(pool.dweights, shape.slots));
  }
}

TEST(DeviceExperts, HaveTheBitsOfTheCpu) {
  for (const ExpertCase& shape : expert_cases()) {
    SCOPED_TRACE(shape.name);
    if (shape.layout.type == WeightType::bf16) {
      expect_experts_agree<BFloat16>(shape);
    } else {
      expect_experts_agree<float>(shape);
    }
  }
}

// Reading 16 bytes at once changes nothing.
template <class W>
void expect_wide_agrees(std::int64_t n) {
  const auto floats = static_cast<std::size_t>(n);
  const std::unique_ptr<void, decltype(&std::free)> memory(
      std::aligned_alloc(64, (floats * 24 * sizeof(float) + 63) / 64 * 64), &std::free);
  auto* x = static_cast<float*>(memory.get());
  auto* rows = reinterpret_cast<W*>(x + floats);
  const auto values = uniform(n, 1), weights = uniform(n * 23, 2);
  std::copy(values.begin(), values.end(), x);
  std::vector<cuda::Term<W>> terms;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if constexpr (sizeof(W) == 2) {
      rows[i] = to_bfloat16(weights[i]);
    } else {
      rows[i] = weights[i];
    }
    if (i % floats == 0) terms.push_back({rows + i, weights[i] + 0.5f});
  }
  const float wide = device_dot<W, true>(n, x, rows), narrow = device_dot<W, false>(n, x, rows);
  ASSERT_EQ(wide, narrow) << "n " << n;
  expect_same_bits(device_sum<W, true>(n, terms), device_sum<W, false>(n, terms));
}

TEST(DeviceExperts, WideLoadsReadTheSame) {
  for (const std::int64_t n : {8, 16, 24, 32, 40, 48, 64, 72, 104, 256}) {
    expect_wide_agrees<float>(n);
    expect_wide_agrees<BFloat16>(n);
  }
}

TEST(DeviceExperts, GradientElementsCoverTheRecord) {
  for (const ExpertCase& shape : expert_cases()) {
    SCOPED_TRACE(shape.name);
    ExpertPool pool(shape);
    pool.forward(0, shape.tokens);
    pool.backward(0, shape.tokens);
    const ExpertLayout& layout = shape.layout;
    const Contribution contribution = pool.contribution();
    std::vector<Use> uses;
    for (std::uint32_t i = 0; i < pool.ids.size() && i < 40; i += 3) uses.push_back({0, i});
    if (uses.empty()) continue;
    std::vector<float> expected(static_cast<std::size_t>(layout.stride()));
    expert_gradient(layout, {&contribution, 1}, uses, expected.data());
    for (std::int64_t i = 0; i < layout.used(); ++i) {
      const cuda::GradientElement element = cuda::gradient_element(layout, i);
      float sum = 0;
      for (const Use& use : uses) {
        const cuda::UseRows rows = cuda::rows_of_use(layout, &contribution, use);
        sum = std::fma(cuda::coefficient_of(rows, element), *cuda::factors_of(rows, element), sum);
      }
      ASSERT_EQ(sum, expected[static_cast<std::size_t>(i)]) << "element " << i;
    }
  }
}

template <math::UpdateKind kKind>
void update_by_elements(const UpdateRule& rule, const ExpertLayout& layout, const float* gradient,
                        float* weights, float* state) {
  const math::RuleNumbers numbers(rule);
  constexpr std::int64_t kMoments = math::moments_of(kKind);
  float* const counter = state + kMoments * layout.stride();
  std::uint32_t t = 0;
  if (kKind != math::UpdateKind::sgd) {
    std::memcpy(&t, counter, sizeof t);
    t = math::next_step(t);
    std::memcpy(counter, &t, sizeof t);
  }
  const math::AdamStep step = math::adam_step(rule, t);
  float none = 0;
  for (std::int64_t i = 0; i < layout.used(); ++i) {
    math::update_element<kKind>(numbers, step, 0, gradient[i], weights[i],
                                kMoments >= 1 ? state[i] : none,
                                kMoments == 2 ? state[layout.stride() + i] : none);
  }
}

TEST(DeviceUpdate, ElementsHaveTheBitsOfTheCpu) {
  for (const auto& [name, rule] : rule_cases()) {
    if (rule.algorithm == UpdateAlgorithm::rowwise_adagrad) continue;  // needs its block's sums
    for (const ExpertLayout& layout : update_layouts()) {
      SCOPED_TRACE(name + " " + std::to_string(layout.d_in));
      UpdatePool cpu(rule, layout), device(rule, layout);
      for (std::uint32_t step = 1; step <= 5; ++step) {
        cpu.draw(step);
        device.draw(step);
        const auto rows = cpu.rows();
        cpu.update();
        for (std::size_t i = 0; i < device.ids.size(); ++i) {
          const std::size_t expert = device.index(device.ids[i]);
          const float* gradient = rows.data() + static_cast<std::int64_t>(i) * layout.used();
          float *weights = device.weights_of(expert), *state = device.state_of(expert);
          const auto update = [&]<math::UpdateKind kKind>() {
            update_by_elements<kKind>(rule, layout, gradient, weights, state);
          };
          switch (math::kind_of(rule)) {
            case math::UpdateKind::sgd:
              update.operator()<math::UpdateKind::sgd>();
              break;
            case math::UpdateKind::momentum:
              update.operator()<math::UpdateKind::momentum>();
              break;
            case math::UpdateKind::adam:
              update.operator()<math::UpdateKind::adam>();
              break;
            default:
              update.operator()<math::UpdateKind::adamw>();
          }
        }
      }
      expect_same_bits(device.weights, cpu.weights);
      expect_same_bits(device.state, cpu.state);
    }
  }
}

// Keys, a stable sort, and what every place writes: each expert once, its uses in order.
TEST(DeviceUses, GroupByExpert) {
  for (const cuda::OpenGeneration& generation :
       {cuda::OpenGeneration{5, 7, 9}, cuda::OpenGeneration{0xFFFFFFF0u, 16, 1},
        cuda::OpenGeneration{0, 1, 1}, cuda::OpenGeneration{3, 1, 64}}) {
    for (const std::size_t n : {1u, 2u, 500u}) {
      for (const std::uint32_t foreign : {0u, 3u, 1u}) {  // one in so many ids; 1: all
        std::mt19937 engine(static_cast<std::uint32_t>(n) + foreign);
        std::vector<std::int64_t> ids;
        for (std::size_t i = 0; i < n; ++i) {
          const bool other = foreign != 0 && engine() % foreign == 0;
          ids.push_back(expert_id(generation.first_row + (other ? generation.rows : 0) +
                                      static_cast<std::uint32_t>(engine() % generation.rows),
                                  static_cast<std::uint32_t>(engine() % generation.cols)));
        }
        const cuda::UseKeys keys(generation);
        std::vector<std::uint32_t> order(n);
        std::iota(order.begin(), order.end(), 0u);
        std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
          return keys.key(ids[a]) < keys.key(ids[b]);
        });
        std::vector<std::uint64_t> sorted;
        for (const std::uint32_t i : order) {
          sorted.push_back(keys.key(ids[i]));
          ASSERT_EQ(sorted.back() >> keys.bits, 0u);
        }
        std::vector<std::int64_t> unique(n, -1);
        std::vector<std::uint32_t> offsets(n + 1, 77);
        std::uint32_t experts = 99, here = 0;
        std::vector<std::uint32_t> to_here;
        for (std::size_t i = 0; i < n; ++i) {
          to_here.push_back(here += keys.begins(sorted.data(), static_cast<std::int64_t>(i)));
        }
        for (std::size_t i = n; i-- > 0;) {
          keys.scatter(sorted.data(), static_cast<std::int64_t>(n), static_cast<std::int64_t>(i),
                       to_here[i], {unique.data(), offsets.data(), nullptr, &experts});
        }
        std::map<std::uint64_t, std::vector<std::uint32_t>> expected;
        for (std::uint32_t i = 0; i < n; ++i) {
          if (row_of(ids[i]) - generation.first_row < generation.rows) {
            expected[static_cast<std::uint64_t>(ids[i])].push_back(i);
          }
        }
        ASSERT_EQ(experts, expected.size());
        ASSERT_EQ(offsets[0], 0u);
        std::uint32_t e = 0;
        for (const auto& [id, uses] : expected) {
          ASSERT_EQ(static_cast<std::uint64_t>(unique[e]), id);
          const std::vector<std::uint32_t> mine(order.begin() + offsets[e],
                                                order.begin() + offsets[e + 1]);
          ASSERT_EQ(mine, uses);
          ++e;
        }
      }
    }
  }
}

TEST(DevicePhilox, IsTheGenerator) {
  for (const std::uint64_t seed : {0ull, 0x123456789abcdefull}) {
    std::uint32_t words[4] = {1, 2, 3, 4};
    math::philox(seed, words);
    // The published recurrence, round by round, in 64-bit arithmetic.
    std::uint64_t x[4] = {1, 2, 3, 4};
    std::uint64_t key[2] = {seed & 0xFFFFFFFFu, seed >> 32};
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t a = 0xD2511F53u * x[0], b = 0xCD9E8D57u * x[2];
      const std::uint64_t next[4] = {(b >> 32) ^ x[1] ^ key[0], b & 0xFFFFFFFFu,
                                     (a >> 32) ^ x[3] ^ key[1], a & 0xFFFFFFFFu};
      std::copy_n(next, 4, x);
      key[0] = (key[0] + 0x9E3779B9u) & 0xFFFFFFFFu;
      key[1] = (key[1] + 0xBB67AE85u) & 0xFFFFFFFFu;
    }
    for (int i = 0; i < 4; ++i) EXPECT_EQ(words[i], x[i]);
  }
}

}  // namespace
}  // namespace perennial::kernels
