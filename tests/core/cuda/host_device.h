// SPDX-License-Identifier: Apache-2.0
// A device for LibTorch that needs none: its memory is the host's, and its kernels the CPU's
// (host_kernels.cc). It finds what code for CUDA gets wrong and the CPU forgives:
// - Only kernels and copies reach its memory. The host that reads or writes through data_ptr() ends
//   the process, saying so with a backtrace.
// - Fresh memory is full of NaNs, and so is memory that was given back.
// - An operator over its tensors and the CPU's throws what CUDA throws. As there, CPU tensors of no
//   dimension are read as numbers, and indexing takes indices of the CPU.
// - A kernel that is given a pointer to the host's memory, or to nothing of the device's, fails.
// - Copies that need not be waited for (non_blocking) happen when the next kernel, operator or
//   copy does: what the host changes meanwhile is seen, and what it reads is old.
// It has one device, one stream, and autograd's own thread, as CUDA has. It is named "fake" and is
// a PrivateUse1 of LibTorch: link perennial_fake_device, once a program.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>

namespace perennial::cuda {

struct HostDevice {
  std::int64_t available = std::int64_t{1} << 40;  // bytes that memory_of() reports
  std::int64_t largest = std::int64_t{1} << 40;    // bytes of an allocation that can be had
  std::int64_t gathered = 0;                       // records that were fetched
  std::int64_t waits = 0;  // times that the host waited for a result of the device
  std::int64_t allocations = 0;
};
HostDevice& host_device();

at::Device fake_device();

// While one exists the host reaches the device's memory.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

// Whether n bytes from p on are the device's.
bool of_device(const void* p, std::size_t n = 1);
// True if each is the device's, or null.
bool all_of_device(std::initializer_list<const void*> pointers);

// Does it when the next kernel, operator or copy of the device begins.
void queue_on_device(std::function<void()> copy);

}  // namespace perennial::cuda
