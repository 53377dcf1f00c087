// SPDX-License-Identifier: Apache-2.0
// Devices and errors.
#include "launch.h"
#include "perennial/kernels/cuda/device.h"

namespace perennial::kernels::cuda {

const char* error_text(Error error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

Error device_count(int* count) {
  *count = 0;
  const cudaError_t error = cudaGetDeviceCount(count);
  (void)cudaGetLastError();  // no launch's
  return static_cast<Error>(error);
}

Error use_device(int device) { return static_cast<Error>(cudaSetDevice(device)); }

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
