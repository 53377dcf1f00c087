// SPDX-License-Identifier: Apache-2.0
// The axes of bench_cuda and its arithmetic.
#include "cuda_cells.h"

#include <algorithm>
#include <sstream>

#include "perennial/core/error.h"
#include "perennial/kernels/optimizer.h"

namespace perennial::bench {
namespace {

const std::vector<std::int64_t> kTokens = {1, 64, 4096, 16384}, kWidths = {256, 512, 1024, 2048},
                                kSides = {128, 512, 1024, 2048};
const std::vector<kernels::WeightType> kTypes = {kernels::WeightType::f32,
                                                 kernels::WeightType::bf16};
constexpr double kFloat = sizeof(float);
// A stable radix sort of (key, use) with three passes of 8 bits, its histograms, and the scan.
constexpr double kGroupingBytesAUse = 130;

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

std::vector<std::int64_t> numbers(const char* flag, const std::string& text,
                                  const std::vector<std::int64_t>& known) {
  std::vector<std::int64_t> out;
  for (const std::string& part : split(text)) {
    const auto found = std::find_if(known.begin(), known.end(), [&part](std::int64_t value) {
      return std::to_string(value) == part;
    });
    if (found == known.end()) {
      std::string all;
      for (const std::int64_t value : known) {
        all.append(all.empty() ? "" : ", ").append(std::to_string(value));
      }
      throw Error(std::string(flag).append(" takes ").append(all).append(", not '") + part + "'");
    }
    out.push_back(*found);
  }
  return out;
}

template <class T>
const std::vector<T>& or_all(const std::vector<T>& some, const std::vector<T>& all) {
  return some.empty() ? all : some;
}

double count(std::int64_t n) { return static_cast<double>(n); }
double tokens_tensor(const Cell& cell) { return count(cell.tokens * cell.d) * kFloat; }

}  // namespace

Selection Selection::parse(const std::string& tokens, const std::string& widths,
                           const std::string& sides, const std::string& types) {
  Selection selection{numbers("--tokens", tokens, kTokens),
                      numbers("--d", widths, kWidths),
                      numbers("--side", sides, kSides),
                      {}};
  for (const std::string& type : split(types)) {
    if (type != "fp32" && type != "bf16")
      throw Error("--type takes fp32, bf16, not '" + type + "'");
    selection.types.push_back(type == "bf16" ? kernels::WeightType::bf16
                                             : kernels::WeightType::f32);
  }
  return selection;
}

std::vector<Cell> cells(const Selection& selection) {
  std::vector<Cell> all;
  for (const std::int64_t tokens : or_all(selection.tokens, kTokens)) {
    for (const std::int64_t d : or_all(selection.widths, kWidths)) {
      for (const std::int64_t side : or_all(selection.sides, kSides)) {
        for (const kernels::WeightType type : or_all(selection.types, kTypes)) {
          all.push_back({.tokens = tokens, .d = d, .side = side, .type = type});
        }
      }
    }
  }
  return all;
}

Work operator+(const Work& a, const Work& b) {
  return {a.bytes + b.bytes, a.gross + b.gross, a.flops + b.flops};
}

Work forward_work(const Cell& cell, std::int64_t different) {
  const double tensors = 2 * tokens_tensor(cell) + count(cell.uses()) * 16;  // ids, weights, pre
  return {count(different) * cell.record_bytes() + tensors,
          count(cell.uses()) * cell.record_bytes() + tensors, 4 * count(cell.uses() * cell.d)};
}

Work backward_work(const Cell& cell, std::int64_t different) {
  // ids, weights and pre read; dweights, cu and cv written.
  const double tensors = 3 * tokens_tensor(cell) + count(cell.uses()) * 28;
  return {count(different) * cell.record_bytes() + tensors,
          count(cell.uses()) * cell.record_bytes() + tensors, 4 * count(cell.uses() * cell.d)};
}

Work grouping_work(const Cell& cell) {
  const double bytes = kGroupingBytesAUse * count(cell.uses());
  return {bytes, bytes, 0};
}

Work update_work(const Cell& cell, std::int64_t different, const kernels::UpdateRule& rule) {
  const kernels::ExpertLayout layout = cell.layout();
  const double state = kFloat * count(kernels::update_state_floats(rule, layout));
  // A bf16 record is written only: its master, in the state, is what is updated.
  const double weights = cell.type == kernels::WeightType::bf16 ? 1 : 2;
  const double records = count(different) * (weights * cell.record_bytes() + 2 * state);
  return {records + 2 * tokens_tensor(cell) + count(cell.uses()) * 16,
          records + count(cell.uses()) * (2 * count(cell.d) * kFloat + 16),
          4 * count(cell.uses() * cell.d) + 28 * count(different * cell.d)};
}

Work retrieval_work(const Cell& cell, bool rounded) {
  const double inputs = count(cell.tokens * cell.heads * 2 * cell.sub_dim +
                              2 * cell.heads * cell.side * cell.sub_dim) *
                        (rounded ? 2 : 4);
  const double bytes = inputs + count(cell.uses()) * 16;
  return {bytes, bytes + 2 * kFloat * count(cell.tokens * cell.heads * 2 * cell.side),
          4 * count(cell.tokens * cell.heads * cell.side * cell.sub_dim)};
}

double record_memory(const Cell& cell) { return count(cell.experts()) * cell.record_bytes(); }

double state_memory(const Cell& cell, const kernels::UpdateRule& rule) {
  return count(cell.experts()) * kFloat * count(kernels::update_state_floats(rule, cell.layout()));
}

double batch_memory(const Cell& cell) {
  return count(cell.uses()) * 256 + 5 * tokens_tensor(cell) + 256e6;
}

double eager_expert_memory(const Cell& cell) {
  const double width = cell.type == kernels::WeightType::bf16 ? 2 : 4;
  return 2 * count(cell.uses() * cell.d) * width + 4 * tokens_tensor(cell);
}

double eager_retrieval_memory(const Cell& cell) {
  const double scores = count(cell.tokens * cell.heads * 2 * cell.side);
  const double sums = count(cell.tokens * cell.heads * cell.top_k * cell.top_k);
  return kFloat * (scores + 3 * sums);
}

}  // namespace perennial::bench
