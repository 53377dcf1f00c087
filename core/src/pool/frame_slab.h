// SPDX-License-Identifier: Apache-2.0
// Frames of one size in extents of huge-page memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace perennial {

// Frames of one size, cut from extents of huge-page memory; the extents are given back at the end.
// Single-threaded; the frames themselves stay where they are.
class FrameSlab {
 public:
  explicit FrameSlab(std::size_t frame_bytes);
  ~FrameSlab();
  FrameSlab(const FrameSlab&) = delete;
  FrameSlab& operator=(const FrameSlab&) = delete;

  std::size_t frame_bytes() const { return frame_bytes_; }
  std::byte* frame(std::uint32_t index) const;
  // A frame for a page: one that was retired, or a new one. Throws std::bad_alloc.
  std::uint32_t add();
  // Gives the memory of a frame back to the system, but for the system's pages that it shares with
  // neighbours which are not retired. Its content is gone.
  void retire(std::uint32_t index);

 private:
  struct Span {
    std::size_t first, last;  // of the system's pages, both included, counted through all extents
  };
  Span pages_under(std::uint32_t index) const;

  std::size_t frame_bytes_;
  std::size_t frames_per_extent_;
  std::size_t extent_bytes_;
  std::uint32_t frames_ = 0;
  std::vector<std::byte*> extents_;
  std::vector<std::uint32_t> retired_;
  std::vector<std::uint32_t> users_;  // by page of the system: frames that reach into it
};

}  // namespace perennial
