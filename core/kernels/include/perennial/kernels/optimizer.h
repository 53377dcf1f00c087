// SPDX-License-Identifier: Apache-2.0
// Update rules of the sparse optimizer, one expert at a time. Thread-safe for different experts;
// the bits do not depend on the instruction set.
#pragma once

#include <cstdint>

namespace perennial::kernels {

struct SgdRule {
  double lr = 0.01;
  double weight_decay = 0;  // added to the gradient, times the weight
};

// w -= lr (g + weight_decay w), by two fused multiply-adds; lr and weight_decay are rounded to
// fp32.
void sgd_update(const SgdRule& rule, std::int64_t n, const float* gradient, float* weights);

struct AdamRule {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  // decoupled (AdamW, Loshchilov & Hutter 2019)
};

// One step of Adam (Kingma & Ba 2015, algorithm 1, bias-corrected) on one expert that has been
// updated step - 1 times before: m, v: (n), in and out. Fused multiply-adds and exactly rounded
// operations in fp32, bias corrections in double. step >= 1.
void adam_update(const AdamRule& rule, std::uint32_t step, std::int64_t n, const float* gradient,
                 float* weights, float* m, float* v);

}  // namespace perennial::kernels
