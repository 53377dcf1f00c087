// SPDX-License-Identifier: Apache-2.0
// A small paged pool of experts with tokens that use it, and the cases the expert tests run
// through.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "inputs.h"
#include "perennial/kernels/experts.h"

namespace perennial::kernels {

struct ExpertCase {
  std::string name;
  std::int64_t tokens = 1, slots = 1;
  ExpertLayout layout;
  Activation activation = Activation::gelu;
};

inline std::vector<ExpertCase> expert_cases() {
  return {
      {"one", 1, 1, {1, 1, false}, Activation::gelu},
      {"no_tokens", 0, 4, {8, 8, false}, Activation::gelu},
      {"no_slots", 3, 0, {8, 8, false}, Activation::gelu},
      {"odd", 5, 7, {17, 13, false}, Activation::relu},
      {"odd_glu", 5, 7, {17, 13, true}, Activation::gelu},
      {"sixteen", 3, 16, {16, 16, false}, Activation::identity},
      {"seventeen_slots_glu", 4, 17, {33, 100, true}, Activation::relu},
      {"wide_to_narrow", 6, 32, {200, 10, false}, Activation::gelu},
      {"narrow_to_wide_glu", 6, 40, {5, 150, true}, Activation::gelu},
      {"layer", 9, 128, {64, 64, false}, Activation::gelu},
  };
}

// Two generations, the second with huge row numbers; 3 experts a page, frames apart in memory.
class ExpertPool {
 public:
  explicit ExpertPool(const ExpertCase& problem) : shape(problem) {
    const std::int64_t stride = shape.layout.stride();
    const std::int64_t pages = kRows * kTiles * 2;
    storage_ = uniform(pages * kPage * stride + 1, 31);
    for (std::int64_t p = 0; p < pages; ++p) {
      // One float off the start: no alignment may be assumed. Frames run backwards.
      frames_.push_back(storage_.data() + 1 + (pages - 1 - p) * kPage * stride);
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
    const auto n = static_cast<std::size_t>(uses);
    pre.assign(n, 9);
    gate.assign(shape.layout.glu ? n : 0, 9);
    dweights.assign(n, 9);
    cu.assign(n, 9);
    cv.assign(n, 9);
    cw.assign(gate.size(), 9);
    y.assign(dy.size(), 9);
    dx.assign(x.size(), 9);
  }

  ExpertArgs args() const {
    return {.layout = shape.layout,
            .activation = shape.activation,
            .frames = {.spans = spans_, .tile = kPage, .record_floats = shape.layout.stride()},
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

  ExpertCase shape;
  std::vector<std::int64_t> ids;
  std::vector<float> weights, x, dy, y, pre, gate, dx, dweights, cu, cv, cw;

 private:
  static constexpr std::uint32_t kRows = 3, kTiles = 2, kPage = 3;
  std::vector<float> storage_;
  std::vector<float*> frames_;
  std::vector<PageSpan> spans_;
};

}  // namespace perennial::kernels
