// SPDX-License-Identifier: Apache-2.0
// Marks what runs on the host and on a CUDA device alike. Headers that use it are C++17, because
// CUDA sources include them too.
#pragma once

#ifdef __CUDACC__
#define PERENNIAL_HOST_DEVICE __host__ __device__
#else
#define PERENNIAL_HOST_DEVICE
#endif
