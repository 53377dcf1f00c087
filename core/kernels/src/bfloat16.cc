// SPDX-License-Identifier: Apache-2.0
// Conversions of whole records, by integer operations.
#include "perennial/kernels/bfloat16.h"

namespace perennial::kernels {

void promote(std::int64_t n, const BFloat16* in, float* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = to_float(in[i]);
}

void round_to_bfloat16(std::int64_t n, const float* in, BFloat16* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = to_bfloat16(in[i]);
}

}  // namespace perennial::kernels
