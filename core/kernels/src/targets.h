// SPDX-License-Identifier: Apache-2.0
// Which instruction sets Highway compiles the kernels for; include before any Highway header.
#pragma once

// Without a fused multiply-add a target could not give the common bits at a useful speed, and
// vectors without a compile-time width cannot be kept in arrays: such machines run the fallback, or
// NEON instead of SVE.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif
