// SPDX-License-Identifier: Apache-2.0
#include "pool/frame_slab.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "pool/huge_pages.h"

namespace perennial {

namespace {

// Large enough for huge pages to pay, small enough that a pool of a few pages reserves little.
constexpr std::size_t kExtent = std::size_t{32} << 20;

std::size_t system_page() {
  static const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

FrameSlab::FrameSlab(std::size_t frame_bytes)
    : frame_bytes_(frame_bytes),
      frames_per_extent_(std::max<std::size_t>(1, kExtent / frame_bytes)),
      extent_bytes_((frames_per_extent_ * frame_bytes + kHugePageBytes - 1) / kHugePageBytes *
                    kHugePageBytes) {}

FrameSlab::~FrameSlab() {
  for (std::byte* extent : extents_) std::free(extent);
}

std::byte* FrameSlab::frame(std::uint32_t index) const {
  return extents_[index / frames_per_extent_] + (index % frames_per_extent_) * frame_bytes_;
}

FrameSlab::Span FrameSlab::pages_under(std::uint32_t index) const {
  const std::size_t begin =
      index / frames_per_extent_ * extent_bytes_ + (index % frames_per_extent_) * frame_bytes_;
  return {begin / system_page(), (begin + frame_bytes_ - 1) / system_page()};
}

std::uint32_t FrameSlab::add() {
  if (retired_.empty() && frames_ == extents_.size() * frames_per_extent_) {
    users_.resize(users_.size() + extent_bytes_ / system_page());
    extents_.push_back(allocate_huge_pages(extent_bytes_));
  }
  std::uint32_t index = frames_;
  if (retired_.empty()) {
    ++frames_;
  } else {
    index = retired_.back();
    retired_.pop_back();
  }
  const Span under = pages_under(index);
  for (std::size_t page = under.first; page <= under.last; ++page) ++users_[page];
  return index;
}

void FrameSlab::retire(std::uint32_t index) {
  Span under = pages_under(index);
  for (std::size_t page = under.first; page <= under.last; ++page) --users_[page];
  retired_.push_back(index);
  if (users_[under.first] > 0) ++under.first;
  if (under.first <= under.last && users_[under.last] > 0) --under.last;
  if (under.first > under.last) return;
  std::byte* const extent = extents_[index / frames_per_extent_];
  const std::size_t offset = under.first * system_page() % extent_bytes_;
  // Advice: where it is not taken the process is larger than the budget, and no bit changes.
  (void)::madvise(extent + offset, (under.last - under.first + 1) * system_page(), MADV_DONTNEED);
}

}  // namespace perennial
