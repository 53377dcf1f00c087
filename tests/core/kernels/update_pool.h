// SPDX-License-Identifier: Apache-2.0
// Paged experts with optimizer state and the uses of two backwards, for the tests of update rules.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "inputs.h"
#include "perennial/kernels/bfloat16.h"
#include "perennial/kernels/optimizer.h"

namespace perennial::kernels {

struct RuleCase {
  std::string name;
  UpdateRule rule;
};

inline std::vector<RuleCase> rule_cases() {
  using enum UpdateAlgorithm;
  return {
      {"sgd", {.algorithm = sgd, .lr = 0.1}},
      {"sgd_decay", {.algorithm = sgd, .lr = 0.1, .weight_decay = 0.05}},
      {"momentum", {.algorithm = sgd, .lr = 0.05, .momentum = 0.9, .weight_decay = 0.01}},
      {"nesterov", {.algorithm = sgd, .lr = 0.05, .momentum = 0.8, .nesterov = true}},
      {"adam", {.algorithm = adam, .lr = 0.01}},
      {"adam_decay",
       {.algorithm = adam, .lr = 0.01, .beta1 = 0, .beta2 = 0.5, .eps = 1e-3, .weight_decay = 0.1}},
      {"adamw", {.algorithm = adamw, .lr = 0.01, .weight_decay = 0.1}},
      {"adagrad", {.algorithm = rowwise_adagrad, .lr = 0.1}},
      {"adagrad_decay",
       {.algorithm = rowwise_adagrad, .lr = 0.1, .eps = 0.01, .weight_decay = 0.1}},
  };
}

// Of fp32 experts, and of both types: CPU and CUDA kernels run through the latter.
inline std::vector<ExpertLayout> update_layouts() {
  return {{1, 1, false},   {16, 16, false}, {17, 13, false}, {17, 13, true},
          {5, 150, false}, {64, 64, true},  {200, 10, true}};
}
inline std::vector<ExpertLayout> all_update_layouts() {
  std::vector<ExpertLayout> all = update_layouts();
  all.push_back({512, 516, true});  // many elements a thread
  all.push_back({17, 13, true, 1, WeightType::bf16});
  all.push_back({64, 40, false, 1, WeightType::bf16});
  return all;
}

// 12 experts on pages of 3, some of which a step touches: once, often, or without any use.
class UpdatePool {
 public:
  static constexpr std::uint32_t kRows = 2, kTiles = 2, kPage = 3;
  static constexpr std::int64_t kSlots = 5, kTokens = 9;

  UpdatePool(const UpdateRule& update_rule, const ExpertLayout& expert)
      : rule(update_rule),
        layout(expert),
        state_floats(update_state_floats(rule, layout)),
        // One float off the start: no alignment may be assumed.
        weights(initial_weights(layout)),
        state(static_cast<std::size_t>(kRows * kTiles * kPage * state_floats + 1)) {
    for (std::int64_t p = 0; p < std::int64_t{kRows} * kTiles; ++p) {
      weight_frames_.push_back(weights.data() + 1 + p * kPage * layout.record_floats());
      state_frames_.push_back(state.data() + 1 + p * kPage * state_floats);
    }
    draw(1);
  }
  UpdatePool(const UpdatePool&) = delete;
  UpdatePool& operator=(const UpdatePool&) = delete;

  // New tokens and uses.
  void draw(std::uint32_t seed) {
    for (std::uint32_t i = 0; i < 2; ++i) {
      x[i] = uniform(kTokens * layout.d_in, 10 * seed + i);
      dy[i] = uniform(kTokens * layout.d_out, 10 * seed + 2 + i);
      c[i] = uniform(3 * kTokens * kSlots, 10 * seed + 4 + i);
    }
    ids.clear();
    offsets.assign(1, 0);
    uses.clear();
    std::mt19937 engine(seed);
    for (std::uint32_t expert = 0; expert < kRows * kTiles * kPage; ++expert) {
      if (engine() % 4 == 0) continue;
      ids.push_back(expert_id(expert / (kTiles * kPage), expert % (kTiles * kPage)));
      const std::uint32_t count = expert == 5 ? 70 : engine() % 4;
      for (std::uint32_t i = 0; i < count; ++i) {
        uses.push_back({i * 2 / count, static_cast<std::uint32_t>(engine() % (kTokens * kSlots))});
      }
      offsets.push_back(uses.size());
    }
  }

  std::vector<Contribution> contributions() const {
    std::vector<Contribution> list;
    for (int i = 0; i < 2; ++i) {
      const float* cu = c[i].data();
      list.push_back({kSlots, x[i].data(), dy[i].data(), cu, cu + kTokens * kSlots,
                      layout.glu ? cu + 2 * kTokens * kSlots : nullptr});
    }
    return list;
  }
  // The gradients, (U, used).
  std::vector<float> rows() const {
    const auto from = contributions();
    std::vector<float> all, one(static_cast<std::size_t>(layout.stride()));
    for (std::size_t i = 0; i < ids.size(); ++i) {
      expert_gradient(layout, from,
                      std::span(uses).subspan(offsets[i], offsets[i + 1] - offsets[i]), one.data());
      all.insert(all.end(), one.begin(), one.begin() + layout.used());
    }
    return all;
  }
  void update(std::int64_t begin, std::int64_t end, const float* gradients = nullptr) {
    const auto from = contributions();
    const UpdateArgs args{
        .rule = rule,
        .layout = layout,
        .weights = weight_table(),
        .state = state_table(),
        .ids = ids,
        .rows = gradients,
        .offsets = gradients == nullptr ? std::span<const std::size_t>(offsets)
                                        : std::span<const std::size_t>(),
        .uses = gradients == nullptr ? std::span<const Use>(uses) : std::span<const Use>(),
        .contributions = from};
    std::vector<float> scratch(static_cast<std::size_t>(layout.stride()), 9.0f);
    update_experts(args, begin, end, scratch.data());
  }
  void update() { update(0, std::ssize(ids)); }

  FrameTable weight_table() { return table(weight_spans_, weight_frames_, layout.record_floats()); }
  FrameTable state_table() { return table(state_spans_, state_frames_, state_floats); }

  std::size_t index(std::int64_t id) const { return row_of(id) * kTiles * kPage + col_of(id); }
  float* weights_of(std::size_t expert) {
    return weights.data() + 1 + static_cast<std::int64_t>(expert) * layout.record_floats();
  }
  float* state_of(std::size_t expert) {
    return state.data() + 1 + static_cast<std::int64_t>(expert) * state_floats;
  }

  UpdateRule rule;
  ExpertLayout layout;
  std::int64_t state_floats;
  std::vector<float> weights, state;
  std::vector<float> x[2], dy[2], c[2];
  std::vector<std::int64_t> ids;
  std::vector<std::size_t> offsets;
  std::vector<Use> uses;

 private:
  static std::vector<float> initial_weights(const ExpertLayout& layout) {
    constexpr std::int64_t kExperts = kRows * kTiles * kPage;
    const auto values = uniform(kExperts * layout.stride() + 1, 1);
    if (layout.type == WeightType::f32) return values;
    std::vector<float> records(static_cast<std::size_t>(kExperts * layout.record_floats() + 1));
    round_to_bfloat16(kExperts * layout.stride(), values.data(),
                      reinterpret_cast<BFloat16*>(records.data() + 1));
    return records;
  }
  FrameTable table(PageSpan& span, std::vector<float*>& frames, std::int64_t floats) {
    span = {.first_row = 0, .rows = kRows, .tiles = kTiles, .frames = frames.data()};
    return {.spans = {&span, 1}, .tile = kPage, .record_floats = floats};
  }

  std::vector<float*> weight_frames_, state_frames_;
  PageSpan weight_spans_, state_spans_;
};

}  // namespace perennial::kernels
