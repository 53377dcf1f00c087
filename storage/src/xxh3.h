// SPDX-License-Identifier: Apache-2.0
// XXH3 in the fastest form the xxHash library offers; the digests are the same in all.
#pragma once

#if defined(PERENNIAL_XXHASH_DISPATCH)
#include <xxh_x86dispatch.h>  // chooses SSE2, AVX2 or AVX-512 when the program runs
#else
#include <xxhash.h>
#endif
