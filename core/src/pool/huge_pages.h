// SPDX-License-Identifier: Apache-2.0
// Memory that the kernel is advised to map in huge pages: fewer faults, fewer misses of the TLB.
#pragma once

#include <cstddef>

namespace perennial {

inline constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

// `bytes`, rounded up to whole huge pages; give it back with std::free(). Throws std::bad_alloc.
// Advice only: without huge pages the same bits come slower.
std::byte* allocate_huge_pages(std::size_t bytes);

}  // namespace perennial
