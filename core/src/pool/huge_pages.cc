// SPDX-License-Identifier: Apache-2.0
#include "pool/huge_pages.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace perennial {

std::byte* allocate_huge_pages(std::size_t bytes) {
  const std::size_t whole = (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  void* memory = std::aligned_alloc(kHugePageBytes, whole);
  if (memory == nullptr) throw std::bad_alloc();
  (void)madvise(memory, whole, MADV_HUGEPAGE);
  return static_cast<std::byte*>(memory);
}

}  // namespace perennial
