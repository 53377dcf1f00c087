// SPDX-License-Identifier: Apache-2.0
// What every CUDA kernel's interface shares: streams, errors and the frame table. The headers of
// this folder need no CUDA header and are C++17; their CPU counterparts in perennial/kernels/ state
// the mathematics. All pointers are to device memory unless a comment says "host"; launches are
// asynchronous on the stream given, allocate nothing and synchronise nothing.
#pragma once

#include <cstdint>

#include "perennial/kernels/expert_layout.h"

struct CUstream_st;

namespace perennial::kernels::cuda {

using Stream = CUstream_st*;  // a cudaStream_t

// A cudaError_t; 0 is success. Arguments that a kernel cannot serve give kInvalidValue
// (cudaErrorInvalidValue), and nothing is launched.
using Error = int;
inline constexpr Error kInvalidValue = 1;
const char* error_text(Error error);

// How many devices there are. An error without a driver, or with one that is too old.
Error device_count(int* count);
// Launches of this thread go to that device from now on: LibTorch's own choice need not reach the
// CUDA runtime that the kernels are linked with.
Error use_device(int device);
// Success if the kernels were built for that device's architecture.
Error device_served(int device);

// page -> frame in device memory: spans ascend by first_row, and each span's `frames` is an array
// in device memory, too. Every frame starts at a multiple of 16 bytes.
struct Frames {
  const PageSpan* spans = nullptr;
  std::uint32_t span_count = 0;
  std::uint32_t tile = 1;          // experts a page
  std::int64_t record_floats = 0;  // words of 4 bytes from one expert to the next within a page

  PERENNIAL_HOST_DEVICE float* record(std::int64_t id) const {
    return record_of(span_of(spans, span_count, row_of(id)), tile, record_floats, id);
  }
};

}  // namespace perennial::kernels::cuda
