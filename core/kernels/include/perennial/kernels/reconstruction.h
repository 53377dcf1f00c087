// SPDX-License-Identifier: Apache-2.0
// How well an autoencoder reconstructs its inputs. The bits of a row depend on that row alone,
// within an instruction set: every element takes the same vector operations, wherever it lies.
// Thread-safe for disjoint ranges. NaN stays NaN.
#pragma once

#include <cstdint>

namespace perennial::kernels {

// out[i] = 1 / (1 + exp(-in[i])).
void sigmoid(std::int64_t n, const float* in, float* out);

// error[r] = mean over the width of the cross entropy of sigmoid(logits) and targets,
//   max(l, 0) - l s + log(1 + exp(-|l|)),  logits, targets: (rows, width), width >= 1.
// Terms in float, summed in 16 double lanes that fold by halves. Rows [begin, end).
void reconstruction_error(std::int64_t begin, std::int64_t end, std::int64_t width,
                          const float* logits, const float* targets, float* error);

}  // namespace perennial::kernels
