// SPDX-License-Identifier: Apache-2.0
// Memory for pages: frames by size, within one budget of bytes, and whose page leaves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "pool/frame_slab.h"
#include "pool/s3_fifo.h"

namespace perennial {

// Invariants:
// - A frame of a size is free, or its page is in the size's order of eviction, or it is in the
//   hands of a caller (being filled, holding a copy for a commit), or it is retired.
// - The bytes of all frames that are not retired are in_use(), and never more than the budget.
//
// Each size has an order of eviction of its own; pages of equal size share it, whatever their kind
// and pool. Who needs a frame takes that of a page of its own size, without returning memory to the
// system; unless a page of another size has been there more than twice as long: then that one
// leaves, and its memory serves the size that needs it. So an idle pool lends its frames to busy
// ones, and two busy ones do not exchange memory all the time.
//
// Single-threaded: guarded by the cache's mutex.
class Frames {
 public:
  struct Victim {
    std::uint32_t size = 0;
    S3Fifo::Resident resident;
  };

  // A budget of 0 bytes is none.
  explicit Frames(std::uint64_t budget_bytes) : budget_bytes_(budget_bytes) {}

  std::uint64_t budget_bytes() const { return budget_bytes_; }
  bool limited() const { return budget_bytes_ > 0; }
  std::uint64_t in_use() const { return in_use_; }  // bytes
  std::uint64_t peak() const { return peak_; }      // the most that has been

  // The number of a size; sizes are few, and stay.
  std::uint32_t size_of(std::size_t bytes);
  std::uint32_t sizes() const { return static_cast<std::uint32_t>(sizes_.size()); }
  std::size_t frame_bytes(std::uint32_t size) const { return sizes_[size].slab->frame_bytes(); }
  std::span<std::byte> bytes(std::uint32_t size, std::uint32_t frame) const;
  std::uint32_t in_use(std::uint32_t size) const { return sizes_[size].in_use; }  // frames
  std::size_t free(std::uint32_t size) const { return sizes_[size].free.size(); }

  // A free frame, or a new one within the budget, for which free frames of other sizes are retired;
  // kNoFrame: there is none.
  std::uint32_t take(std::uint32_t size);
  void put_back(std::uint32_t size, std::uint32_t frame) { sizes_[size].free.push_back(frame); }
  // A new frame within the budget that takes nothing from others; kNoFrame.
  std::uint32_t add(std::uint32_t size);
  bool may_add(std::uint32_t size) const {
    return !limited() || in_use_ + frame_bytes(size) <= budget_bytes_;
  }

  // A page came into a frame that was taken.
  void insert(std::uint32_t size, std::uint32_t frame, std::uint64_t page) {
    sizes_[size].order.insert(frame, page, ++now_);
  }
  // Pages left their frames without being victims: the frames are the caller's. O(frames).
  void remove_if(const std::function<bool(std::uint64_t)>& left);
  // The page that leaves for one of that size: its frame is the caller's, who gives it back with
  // keep() if the page stays after all. Nothing when no page of any size is evictable.
  std::optional<Victim> victim(std::uint32_t size, PageUse& use);
  void keep(const Victim& victim) { sizes_[victim.size].order.keep(victim.resident, now_); }
  // About `count` pages of a size that leave next.
  std::vector<S3Fifo::Resident> next(std::uint32_t size, std::size_t count) const {
    return sizes_[size].order.next(count);
  }
  void rename(const std::function<std::uint64_t(std::uint64_t)>& renamed);

 private:
  struct Size {
    std::unique_ptr<FrameSlab> slab;
    S3Fifo order;
    std::vector<std::uint32_t> free;
    std::uint32_t in_use = 0;
  };
  bool retire_free(std::uint32_t other_than);

  std::uint64_t budget_bytes_;
  std::uint64_t in_use_ = 0, peak_ = 0;
  std::uint64_t now_ = 0;  // pages that came in
  std::vector<Size> sizes_;
};

}  // namespace perennial
