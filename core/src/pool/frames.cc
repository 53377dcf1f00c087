// SPDX-License-Identifier: Apache-2.0
#include "pool/frames.h"

#include <algorithm>

namespace perennial {

std::uint32_t Frames::size_of(std::size_t bytes) {
  const auto found = std::find_if(sizes_.begin(), sizes_.end(), [&](const Size& size) {
    return size.slab->frame_bytes() == bytes;
  });
  const auto at = static_cast<std::uint32_t>(found - sizes_.begin());
  if (found == sizes_.end()) sizes_.emplace_back().slab = std::make_unique<FrameSlab>(bytes);
  return at;
}

std::span<std::byte> Frames::bytes(std::uint32_t size, std::uint32_t frame) const {
  const FrameSlab& slab = *sizes_[size].slab;
  return {slab.frame(frame), slab.frame_bytes()};
}

std::uint32_t Frames::take(std::uint32_t size) {
  std::vector<std::uint32_t>& free = sizes_[size].free;
  if (!free.empty()) {
    const std::uint32_t frame = free.back();
    free.pop_back();
    return frame;
  }
  for (;;) {
    const std::uint32_t frame = add(size);
    if (frame != kNoFrame || !retire_free(size)) return frame;
  }
}

std::uint32_t Frames::add(std::uint32_t size) {
  if (!may_add(size)) return kNoFrame;
  const std::uint32_t frame = sizes_[size].slab->add();
  ++sizes_[size].in_use;
  in_use_ += frame_bytes(size);
  peak_ = std::max(peak_, in_use_);
  return frame;
}

bool Frames::retire_free(std::uint32_t other_than) {
  for (std::uint32_t i = 0; i < sizes_.size(); ++i) {
    Size& size = sizes_[i];
    if (i == other_than || size.free.empty()) continue;
    size.slab->retire(size.free.back());
    size.free.pop_back();
    --size.in_use;
    in_use_ -= size.slab->frame_bytes();
    return true;
  }
  return false;
}

std::optional<Frames::Victim> Frames::victim(std::uint32_t size, PageUse& use) {
  constexpr std::uint64_t kPatience = 2;
  std::vector<std::pair<std::uint64_t, std::uint32_t>> ages;  // longest first
  for (std::uint32_t i = 0; i < sizes_.size(); ++i) {
    const std::optional<std::uint64_t> since = sizes_[i].order.oldest();
    if (since) ages.emplace_back((now_ - *since) * (i == size ? kPatience : 1), i);
  }
  std::sort(ages.begin(), ages.end(), [size](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : (a.second == size) > (b.second == size);
  });
  for (const auto& [age, i] : ages) {
    if (const auto found = sizes_[i].order.victim(use, now_)) return Victim{i, *found};
  }
  return std::nullopt;
}

void Frames::remove_if(const std::function<bool(std::uint64_t)>& left) {
  for (Size& size : sizes_) size.order.remove_if(left);
}

void Frames::rename(const std::function<std::uint64_t(std::uint64_t)>& renamed) {
  for (Size& size : sizes_) size.order.rename(renamed);
}

}  // namespace perennial
