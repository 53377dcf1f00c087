// SPDX-License-Identifier: Apache-2.0
// Frames of one size in extents of huge-page memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace perennial {

// Frames of one size, cut from extents of huge-page memory that are given back at the end only.
// Single-threaded; the frames themselves stay where they are.
class FrameSlab {
 public:
  explicit FrameSlab(std::size_t frame_bytes);
  ~FrameSlab();
  FrameSlab(const FrameSlab&) = delete;
  FrameSlab& operator=(const FrameSlab&) = delete;

  std::size_t frame_bytes() const { return frame_bytes_; }
  float* frame(std::uint32_t index) const;
  std::uint32_t frames() const { return frames_; }
  // Adds one frame; throws std::bad_alloc.
  std::uint32_t add();

 private:
  std::size_t frame_bytes_;
  std::size_t frames_per_extent_;
  std::uint32_t frames_ = 0;
  std::vector<std::byte*> extents_;
  std::size_t extent_bytes_ = 0;
};

}  // namespace perennial
