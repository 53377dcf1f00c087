// SPDX-License-Identifier: Apache-2.0
// Experts' records on their way from frames to the host, and which experts were updated.
#pragma once

#include <cstdint>

#include "perennial/kernels/cuda/device.h"
#include "perennial/kernels/cuda/optimizer.h"

namespace perennial::kernels::cuda {

// rows (n, frames.record_floats) from the records of ids (n). Rows start at multiples of 16 bytes,
// and record_floats is a multiple of 4.
Error gather_records(const Frames& frames, const std::int64_t* ids, std::int64_t n, float* rows,
                     Stream stream);

// Sets bit i % 32 of bits[i / 32] for each of the U experts ids, which are of the generation:
// i = (row within it) * cols + column. most_experts: at least U, sizes the launch.
Error mark_experts(const std::int64_t* ids, const std::uint32_t* experts, std::int64_t most_experts,
                   const OpenGeneration& generation, std::uint32_t* bits, Stream stream);

}  // namespace perennial::kernels::cuda
