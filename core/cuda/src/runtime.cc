// SPDX-License-Identifier: Apache-2.0
// CUDA's side of runtime.h, over LibTorch's streams and allocators.
#include "runtime.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <string>

#include "perennial/core/error.h"

namespace perennial::cuda {

kernels::cuda::Stream current_stream(const at::Device& device) {
  check(kernels::cuda::use_device(device.index()), "choosing the device");
  return c10::cuda::getCurrentCUDAStream(device.index()).stream();
}

Memory memory_of(const at::Device& device) {
  // The allocator's figures are to be had once LibTorch has begun with CUDA, which its first tensor
  // on the device would see to; this is asked for before.
  at::globalContext().lazyInitDevice(at::kCUDA);
  const c10::cuda::CUDAGuard guard(device);
  std::size_t free = 0, total = 0;
  check(static_cast<kernels::cuda::Error>(cudaMemGetInfo(&free, &total)), "asking for memory");
  constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  const std::int64_t unused =
      stats.reserved_bytes[kAll].current - stats.allocated_bytes[kAll].current;
  return {static_cast<std::int64_t>(free) + unused, static_cast<std::int64_t>(total)};
}

at::Tensor host_buffer(const at::Device& /*device*/, std::int64_t bytes) {
  return at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
}

void check(kernels::cuda::Error error, const char* what) {
  if (error == 0) return;
  throw DeviceError(std::string(what) +
                    " failed on the CUDA device: " + kernels::cuda::error_text(error));
}

}  // namespace perennial::cuda
