// SPDX-License-Identifier: Apache-2.0
// Frames of one size in extents of huge-page memory.
#include "pool/frame_slab.h"

#include <algorithm>
#include <cstdlib>

#include "pool/huge_pages.h"

namespace perennial {

namespace {

// Large enough for huge pages to pay, small enough that a pool of a few pages reserves little.
constexpr std::size_t kExtent = std::size_t{32} << 20;

}  // namespace

FrameSlab::FrameSlab(std::size_t frame_bytes)
    : frame_bytes_(frame_bytes),
      frames_per_extent_(std::max<std::size_t>(1, kExtent / frame_bytes)),
      extent_bytes_(frames_per_extent_ * frame_bytes) {}

FrameSlab::~FrameSlab() {
  for (std::byte* extent : extents_) std::free(extent);
}

float* FrameSlab::frame(std::uint32_t index) const {
  std::byte* extent = extents_[index / frames_per_extent_];
  return reinterpret_cast<float*>(extent + (index % frames_per_extent_) * frame_bytes_);
}

std::uint32_t FrameSlab::add() {
  if (frames_ == extents_.size() * frames_per_extent_) {
    extents_.push_back(allocate_huge_pages(extent_bytes_));
  }
  return frames_++;
}

}  // namespace perennial
