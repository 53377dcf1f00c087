// SPDX-License-Identifier: Apache-2.0
// What bench_cuda runs on the device itself. On LibTorch's current stream; no error is lost: see
// cudaGetLastError().
#pragma once

#include <cstdint>

#include "perennial/kernels/cuda/device.h"

namespace perennial::bench {

// Noise in [-1, 1) where zeros would flatter the device; of bf16, both halves of a word are numbers
// of size about 1.
void fill_with_noise(float* out, std::int64_t n, bool bf16, kernels::cuda::Stream stream);

// The ceiling: a warp reads a random row after the other. rows (n): indices of rows of `floats`
// each, a multiple of 4; sink: one float, not written.
void read_rows(const float* slab, const std::int64_t* rows, std::int64_t n, std::int64_t floats,
               float* sink, kernels::cuda::Stream stream);

}  // namespace perennial::bench
