// SPDX-License-Identifier: Apache-2.0
// What the host, taken for a device, can be told and asked; see host_kernels.cc.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace perennial::cuda {

struct HostDevice {
  std::int64_t available = std::int64_t{1} << 40;  // bytes that memory_of() reports
  std::int64_t gathered = 0;                       // records that were fetched
};
HostDevice& host_device();

}  // namespace perennial::cuda
