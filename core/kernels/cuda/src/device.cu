// SPDX-License-Identifier: Apache-2.0
// Devices and errors.
#include "launch.h"
#include "perennial/kernels/cuda/device.h"

namespace perennial::kernels::cuda {

const char* error_text(Error error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

Error device_count(int* count) {
  *count = 0;
  return static_cast<Error>(cudaGetDeviceCount(count));
}

namespace {
__global__ void probe_kernel() {}
}  // namespace

Error device_served(int device) {
  int before = 0;
  if (const cudaError_t error = cudaGetDevice(&before)) return static_cast<Error>(error);
  if (const cudaError_t error = cudaSetDevice(device)) return static_cast<Error>(error);
  cudaFuncAttributes attributes;
  const cudaError_t found = cudaFuncGetAttributes(&attributes, probe_kernel);
  (void)cudaGetLastError();  // not sticky
  const cudaError_t back = cudaSetDevice(before);
  return static_cast<Error>(found != cudaSuccess ? found : back);
}

}  // namespace perennial::kernels::cuda
