// SPDX-License-Identifier: Apache-2.0
// What every gate makes of its scores: one generation, or shares of all.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace perennial {

// Who may answer: `candidates` has a flag a generation; `otherwise` answers where none may.
struct GateCandidates {
  std::vector<bool> candidates;
  std::int64_t otherwise = 0;
};

// Throws Error for a generation that a gate, which has `known` of them, was not told of.
[[noreturn]] void throw_unknown_generation(std::int64_t generation, std::int64_t known);

// scores: (B, G) float32 to (B) int64: the candidate with the best score, ties to the older one.
at::Tensor best_candidate(const at::Tensor& scores, const GateCandidates& who);

// scores: (B, G) float32 to (B, G): the softmax of `temperature` times the scores over the
// candidates, without the shares below 1/1024 of the largest, which hardly count.
at::Tensor shares_of_candidates(const at::Tensor& scores, const GateCandidates& who,
                                double temperature);

}  // namespace perennial
