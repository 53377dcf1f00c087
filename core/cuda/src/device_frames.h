// SPDX-License-Identifier: Apache-2.0
// The pages of a pool in device memory, behind the page -> frame table that kernels address.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "perennial/core/pool.h"
#include "perennial/kernels/cuda/device.h"

namespace perennial::cuda {

// Frames of one kind of page. A region (a generation) is one allocation, page after page.
// Single-threaded.
class DeviceFrames {
 public:
  // record_floats: words of 4 bytes an expert.
  DeviceFrames(const at::Device& device, std::int64_t tile, std::int64_t record_floats);

  std::int64_t record_floats() const { return record_floats_; }
  std::int64_t bytes(std::uint32_t pages) const { return pages * page_bytes_; }
  bool holds(std::uint32_t region) const;

  // Fills a copy of a page; called by several threads.
  using ReadPage = std::function<void(std::uint32_t page, std::span<std::byte> payload)>;
  // Allocates a region for rows x tiles pages and loads it through `staging`, host memory for at
  // least one page. Throws DeviceError, with the figures, when that does not fit; nothing has
  // changed then.
  void add(std::uint32_t region, std::uint32_t first_row, std::uint32_t rows, std::uint32_t tiles,
           const ReadPage& read, const at::Tensor& staging);
  void remove(std::uint32_t region);

  kernels::cuda::Frames table() const;

 private:
  struct Region {
    std::uint32_t index = 0, first_row = 0, rows = 0, tiles = 0;
    at::Tensor pages;   // (pages * page bytes) uint8
    at::Tensor frames;  // (pages) int64: where each page is
  };
  void show();

  at::Device device_;
  std::int64_t tile_, record_floats_, page_bytes_;
  std::vector<Region> regions_;  // ascending
  at::Tensor spans_;             // the PageSpans, as bytes
};

}  // namespace perennial::cuda
