// SPDX-License-Identifier: Apache-2.0
// What bench_cuda measures, and what each kernel has to move and to compute there: arithmetic that
// needs no device.
//
// Symbols: T tokens, S slots a token, d = d_in = d_out, N experts, E different experts of a batch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "perennial/kernels/expert_layout.h"
#include "perennial/kernels/update_rule.h"

namespace perennial::bench {

struct Cell {
  std::int64_t tokens = 64, d = 256, side = 128;
  kernels::WeightType type = kernels::WeightType::f32;
  std::int64_t heads = 8, top_k = 16, sub_dim = 64;

  std::int64_t experts() const { return side * side; }
  std::int64_t slots() const { return heads * top_k; }
  std::int64_t uses() const { return tokens * slots(); }
  kernels::ExpertLayout layout() const { return {d, d, false, 1, type}; }
  double record_bytes() const { return 4.0 * static_cast<double>(layout().record_floats()); }
  std::string type_name() const { return type == kernels::WeightType::bf16 ? "bf16" : "fp32"; }
};

// The values of each axis; empty: all of them. Text: "64" or "1,4096"; throws Error for what is no
// value of the axis.
struct Selection {
  std::vector<std::int64_t> tokens, widths, sides;
  std::vector<kernels::WeightType> types;

  static Selection parse(const std::string& tokens, const std::string& widths,
                         const std::string& sides, const std::string& types);
};
// Every combination, tokens slowest, types fastest.
std::vector<Cell> cells(const Selection& selection);

// bytes: each different expert once a pass, and the tokens' tensors, which is what the roofline
// counts; gross: each use of an expert.
struct Work {
  double bytes = 0, gross = 0, flops = 0;
};
Work operator+(const Work& a, const Work& b);
Work forward_work(const Cell& cell, std::int64_t different);
Work backward_work(const Cell& cell, std::int64_t different);
Work grouping_work(const Cell& cell);
// Weights and state read and written, x and dy read once.
Work update_work(const Cell& cell, std::int64_t different, const kernels::UpdateRule& rule);
// `rounded`: of bf16 query and keys.
Work retrieval_work(const Cell& cell, bool rounded);

// Memory of the device: the experts' records, their optimizer state, a batch's arrays, and what
// eager LibTorch's gathered rows, scores and sums take beside them.
double record_memory(const Cell& cell);
double state_memory(const Cell& cell, const kernels::UpdateRule& rule);
double batch_memory(const Cell& cell);
double eager_expert_memory(const Cell& cell);
double eager_retrieval_memory(const Cell& cell);

}  // namespace perennial::bench
