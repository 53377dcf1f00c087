// SPDX-License-Identifier: Apache-2.0
// A small paged pool of experts with tokens that use it, and the cases the expert tests run
// through.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "inputs.h"
#include "perennial/kernels/bfloat16.h"
#include "perennial/kernels/experts.h"

namespace perennial::kernels {

struct ExpertCase {
  std::string name;
  std::int64_t tokens = 1, slots = 1;
  ExpertLayout layout;
  Activation activation = Activation::gelu;
};

// Reference, CPU and CUDA kernels run through it.
inline std::vector<ExpertCase> expert_cases() {
  using enum Activation;
  std::vector<ExpertCase> all = {
      {"one", 1, 1, {1, 1, false}, gelu},
      {"no_tokens", 0, 4, {8, 8, false}, gelu},
      {"no_slots", 3, 0, {8, 8, false}, gelu},
      {"odd", 5, 7, {17, 13, false}, relu},
      {"odd_glu", 5, 7, {17, 13, true}, gelu},
      {"sixteen", 3, 16, {16, 16, false}, identity},
      {"seventeen_slots_glu", 4, 17, {33, 100, true}, relu},
      {"wide_to_narrow", 6, 32, {200, 10, false}, gelu},
      {"narrow_to_wide_glu", 6, 40, {5, 150, true}, gelu},
      {"layer", 9, 128, {64, 64, false}, gelu},
      {"wide_expert", 4, 5, {17, 13, false, 3}, silu},
      {"wider_than_a_group_glu", 3, 2, {20, 9, true, 21}, gelu_tanh},
      {"one_bf16", 1, 1, {1, 1, false, 1, WeightType::bf16}, gelu},
      {"no_slots_bf16", 3, 0, {8, 8, false, 1, WeightType::bf16}, gelu},
      {"odd_glu_bf16", 5, 7, {17, 13, true, 1, WeightType::bf16}, silu},
      {"layer_bf16", 9, 128, {64, 48, false, 1, WeightType::bf16}, gelu},
      {"wide_expert_bf16", 4, 5, {33, 19, true, 3, WeightType::bf16}, relu},
      // Wide loads and not, many warps and few, each number of threads a token, 512 slots.
      {"wide_32", 40, 128, {128, 128, false}, relu},
      {"wide_64_glu", 150, 130, {256, 192, true}, relu},
      {"wide_128", 5, 512, {1024, 516, false}, identity},
      {"wide_bf16", 150, 128, {512, 256, false, 1, WeightType::bf16}, relu},
      {"wide_bf16_glu", 5, 512, {2048, 1032, true, 1, WeightType::bf16}, relu},
      {"narrow_large", 3, 65, {1021, 2047, true}, relu},
  };
  for (const Activation activation : kActivations) {
    all.push_back({"activation", 7, 16, {32, 32, true, 2}, activation});
  }
  return all;
}

// Two generations, the second with huge row numbers; 3 experts a page, frames apart in memory.
class ExpertPool {
 public:
  explicit ExpertPool(const ExpertCase& problem) : shape(problem) {
    const std::int64_t stride = shape.layout.stride(), words = shape.layout.record_floats();
    const std::int64_t pages = kRows * kTiles * 2;
    values_ = uniform(pages * kPage * stride, 31);
    storage_.resize(static_cast<std::size_t>(pages * kPage * words + 1));
    float* const begin = storage_.data() + 1;  // no alignment may be assumed
    if (shape.layout.type == WeightType::bf16) {
      auto* const stored = reinterpret_cast<BFloat16*>(begin);
      round_to_bfloat16(std::ssize(values_), values_.data(), stored);
      promote(std::ssize(values_), stored, values_.data());
    } else {
      std::copy(values_.begin(), values_.end(), begin);
    }
    for (std::int64_t p = 0; p < pages; ++p) {
      frames_.push_back(begin + (pages - 1 - p) * kPage * words);  // frames run backwards
    }
    spans_ = {{.first_row = 4, .rows = kRows, .tiles = kTiles, .frames = frames_.data()},
              {.first_row = 0xFFFFFFFFu - kRows + 1,
               .rows = kRows,
               .tiles = kTiles,
               .frames = frames_.data() + kRows * kTiles}};
    const std::int64_t uses = shape.tokens * shape.slots;
    std::mt19937 engine(32);
    for (std::int64_t i = 0; i < uses; ++i) {
      // Few experts, so that heads and tokens share them.
      const PageSpan& span = spans_[engine() % 2];
      ids.push_back(expert_id(span.first_row + static_cast<std::uint32_t>(engine() % kRows),
                              static_cast<std::uint32_t>(engine() % (kTiles * kPage))));
    }
    weights = uniform(uses, 33);
    x = uniform(shape.tokens * shape.layout.d_in, 34);
    dy = uniform(shape.tokens * shape.layout.d_out, 35);
    const auto n = static_cast<std::size_t>(uses * shape.layout.width);
    pre.assign(n, 9);
    gate.assign(shape.layout.glu ? n : 0, 9);
    dweights.assign(weights.size(), 9);
    cu.assign(n, 9);
    cv.assign(n, 9);
    cw.assign(gate.size(), 9);
    y.assign(dy.size(), 9);
    dx.assign(x.size(), 9);
  }

  ExpertArgs args() const {
    return {
        .layout = shape.layout,
        .activation = shape.activation,
        .frames = {.spans = spans_, .tile = kPage, .record_floats = shape.layout.record_floats()},
        .slots = shape.slots,
        .ids = ids.data(),
        .weights = weights.data(),
        .x = x.data()};
  }
  float* gate_or_null() { return shape.layout.glu ? gate.data() : nullptr; }
  float* cw_or_null() { return shape.layout.glu ? cw.data() : nullptr; }
  void forward(std::int64_t begin, std::int64_t end) {
    experts_forward(args(), y.data(), pre.data(), gate_or_null(), begin, end);
  }
  void backward(std::int64_t begin, std::int64_t end) {
    experts_backward_tokens(args(), pre.data(), gate_or_null(), dy.data(), dx.data(),
                            dweights.data(), cu.data(), cv.data(), cw_or_null(), begin, end);
  }
  Contribution contribution() {
    return {.slots = shape.slots,
            .x = x.data(),
            .dy = dy.data(),
            .cu = cu.data(),
            .cv = cv.data(),
            .cw = cw_or_null()};
  }

  // The weights of an expert as fp32 (ExpertLayout).
  const float* record(std::int64_t id) const {
    const float* stored = args().frames.record(id);
    return values_.data() +
           (stored - storage_.data() - 1) / shape.layout.record_floats() * shape.layout.stride();
  }

  ExpertCase shape;
  std::vector<std::int64_t> ids;
  std::vector<float> weights, x, dy, y, pre, gate, dx, dweights, cu, cv, cw;

 private:
  static constexpr std::uint32_t kRows = 3, kTiles = 2, kPage = 3;
  std::vector<float> values_, storage_;
  std::vector<float*> frames_;
  std::vector<PageSpan> spans_;
};

}  // namespace perennial::kernels
