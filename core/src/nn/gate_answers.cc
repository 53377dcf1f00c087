// SPDX-License-Identifier: Apache-2.0
#include "nn/gate_answers.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "perennial/core/error.h"

namespace perennial {

namespace {

// Shares of a mixed answer below this part of the largest do not count.
constexpr float kSmallestShare = 1.0F / 1024;

}  // namespace

void throw_unknown_generation(std::int64_t generation, std::int64_t known) {
  throw Error("generation " + std::to_string(generation) + " is unknown to the gate, which has " +
              std::to_string(known));
}

at::Tensor best_candidate(const at::Tensor& scores, const GateCandidates& who) {
  const std::int64_t generations = scores.size(1);
  at::Tensor chosen = at::empty({scores.size(0)}, at::kLong);
  const float* row = scores.const_data_ptr<float>();
  std::int64_t* to = chosen.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < scores.size(0); ++i, row += generations) {
    std::int64_t best = -1;
    for (std::int64_t g = 0; g < generations; ++g) {
      if (!who.candidates[static_cast<std::size_t>(g)]) continue;
      if (best < 0 || row[g] > row[best]) best = g;
    }
    to[i] = best < 0 ? who.otherwise : best;
  }
  return chosen;
}

at::Tensor shares_of_candidates(const at::Tensor& scores, const GateCandidates& who,
                                double temperature) {
  const std::int64_t generations = scores.size(1);
  at::Tensor shares = at::empty_like(scores);
  const float* row = scores.const_data_ptr<float>();
  float* to = shares.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < scores.size(0); ++i, row += generations, to += generations) {
    float best = -std::numeric_limits<float>::infinity();
    for (std::int64_t g = 0; g < generations; ++g) {
      if (who.candidates[static_cast<std::size_t>(g)]) best = std::max(best, row[g]);
    }
    double sum = 0;
    for (std::int64_t g = 0; g < generations; ++g) {
      const float share = who.candidates[static_cast<std::size_t>(g)]
                              ? std::exp(static_cast<float>(temperature) * (row[g] - best))
                              : 0;
      to[g] = share < kSmallestShare ? 0 : share;
      sum += to[g];
    }
    if (sum == 0) to[who.otherwise] = static_cast<float>(sum = 1);
    for (std::int64_t g = 0; g < generations; ++g) to[g] = static_cast<float>(to[g] / sum);
  }
  return shares;
}

}  // namespace perennial
