// SPDX-License-Identifier: Apache-2.0
// Frames of one size in extents of huge-page memory.
#include "pool/frame_slab.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace perennial {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
// Large enough for huge pages to pay, small enough that a pool of a few pages reserves little.
constexpr std::size_t kExtent = std::size_t{32} << 20;

}  // namespace

FrameSlab::FrameSlab(std::size_t frame_bytes)
    : frame_bytes_(frame_bytes),
      frames_per_extent_(std::max<std::size_t>(1, kExtent / frame_bytes)),
      extent_bytes_((frames_per_extent_ * frame_bytes + kHugePage - 1) / kHugePage * kHugePage) {}

FrameSlab::~FrameSlab() {
  for (std::byte* extent : extents_) std::free(extent);
}

float* FrameSlab::frame(std::uint32_t index) const {
  std::byte* extent = extents_[index / frames_per_extent_];
  return reinterpret_cast<float*>(extent + (index % frames_per_extent_) * frame_bytes_);
}

std::uint32_t FrameSlab::add() {
  if (frames_ == extents_.size() * frames_per_extent_) {
    void* extent = std::aligned_alloc(kHugePage, extent_bytes_);
    if (extent == nullptr) throw std::bad_alloc();
    // Advice only: without huge pages the same bits come slower.
    (void)madvise(extent, extent_bytes_, MADV_HUGEPAGE);
    extents_.push_back(static_cast<std::byte*>(extent));
  }
  return frames_++;
}

}  // namespace perennial
