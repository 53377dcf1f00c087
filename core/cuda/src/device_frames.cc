// SPDX-License-Identifier: Apache-2.0
// Allocating, loading and addressing pages on the device.
#include "device_frames.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <string>

#include "perennial/core/error.h"
#include "runtime.h"

namespace perennial::cuda {

DeviceFrames::DeviceFrames(const at::Device& device, std::int64_t tile, std::int64_t record_floats)
    : device_(device),
      tile_(tile),
      record_floats_(record_floats),
      page_bytes_(tile * record_floats * static_cast<std::int64_t>(sizeof(float))) {}

bool DeviceFrames::holds(std::uint32_t region) const {
  return std::any_of(regions_.begin(), regions_.end(),
                     [region](const Region& r) { return r.index == region; });
}

void DeviceFrames::add(std::uint32_t region, std::uint32_t first_row, std::uint32_t rows,
                       std::uint32_t tiles, const ReadPage& read, const at::Tensor& staging) {
  const std::int64_t pages = std::int64_t{rows} * tiles;
  const std::int64_t bytes = pages * page_bytes_;
  const Memory memory = memory_of(device_);
  const auto refuse = [&](const char* but) {
    throw DeviceError("generation " + std::to_string(region) + " needs " + std::to_string(bytes) +
                      " bytes of " + device_.str() + ", of whose " + std::to_string(memory.total) +
                      " bytes " + std::to_string(memory.available) + " are available" + but +
                      "; the experts of a pool must all fit the device");
  };
  if (bytes > memory.available) refuse("");
  const at::TensorOptions on_device = at::TensorOptions().device(device_);
  Region added{region, first_row, rows, tiles, {}, {}};
  try {
    added.pages = at::empty({bytes}, on_device.dtype(at::kByte));
  } catch (const c10::OutOfMemoryError&) {
    refuse(", but not in one piece");
  }
  const auto start = reinterpret_cast<std::int64_t>(added.pages.data_ptr());
  added.frames = at::arange(start, start + bytes, page_bytes_, on_device.dtype(at::kLong));
  auto* const host = static_cast<std::byte*>(staging.data_ptr());
  const std::int64_t at_once = staging.numel() / page_bytes_;
  for (std::int64_t first = 0; first < pages; first += at_once) {
    const std::int64_t n = std::min(at_once, pages - first);
    at::parallel_for(0, n, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        read(static_cast<std::uint32_t>(first + i),
             {host + i * page_bytes_, static_cast<std::size_t>(page_bytes_)});
      }
    });
    added.pages.narrow(0, first * page_bytes_, n * page_bytes_)
        .copy_(staging.narrow(0, 0, n * page_bytes_));  // waits: staging is filled again
  }
  regions_.push_back(std::move(added));
  std::sort(regions_.begin(), regions_.end(),
            [](const Region& a, const Region& b) { return a.index < b.index; });
  show();
}

void DeviceFrames::remove(std::uint32_t region) {
  std::erase_if(regions_, [region](const Region& r) { return r.index == region; });
  show();
}

void DeviceFrames::show() {
  std::vector<kernels::PageSpan> spans;
  for (const Region& region : regions_) {
    spans.push_back({region.first_row, region.rows, region.tiles,
                     reinterpret_cast<float* const*>(region.frames.data_ptr())});
  }
  const auto bytes = static_cast<std::int64_t>(spans.size() * sizeof(kernels::PageSpan));
  spans_ = at::from_blob(spans.data(), {bytes}, at::TensorOptions().dtype(at::kByte))
               .clone()
               .to(device_);
}

kernels::cuda::Frames DeviceFrames::table() const {
  return {reinterpret_cast<const kernels::PageSpan*>(spans_.data_ptr()),
          static_cast<std::uint32_t>(spans_.numel() / std::int64_t{sizeof(kernels::PageSpan)}),
          static_cast<std::uint32_t>(tile_), record_floats_};
}

}  // namespace perennial::cuda
