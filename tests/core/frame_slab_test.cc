// SPDX-License-Identifier: Apache-2.0
// Frames of any size beside each other, and memory that goes back to the system.
#include "pool/frame_slab.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace perennial {
namespace {

bool holds(const FrameSlab& slab, std::uint32_t frame, int value) {
  return std::all_of(slab.frame(frame), slab.frame(frame) + slab.frame_bytes(),
                     [&](std::byte b) { return b == static_cast<std::byte>(value); });
}

class FrameSlabs : public ::testing::TestWithParam<std::size_t> {};

TEST_P(FrameSlabs, RetiringLeavesTheNeighboursAlone) {
  FrameSlab slab(GetParam());
  for (std::uint32_t i = 0; i < 40; ++i) {
    ASSERT_EQ(slab.add(), i);
    std::memset(slab.frame(i), static_cast<int>(i + 1), slab.frame_bytes());
  }
  for (std::uint32_t i = 1; i < 40; i += 2) slab.retire(i);
  for (std::uint32_t i = 0; i < 40; i += 2) EXPECT_TRUE(holds(slab, i, static_cast<int>(i + 1)));
  std::set<std::uint32_t> again;
  for (int i = 0; i < 20; ++i) {
    const std::uint32_t frame = slab.add();
    EXPECT_EQ(frame % 2, 1u) << "retired ones are used before new ones";
    std::memset(slab.frame(frame), 77, slab.frame_bytes());
    again.insert(frame);
  }
  EXPECT_EQ(again.size(), 20u);
  for (std::uint32_t i = 0; i < 40; ++i) {
    EXPECT_TRUE(holds(slab, i, i % 2 == 1 ? 77 : static_cast<int>(i + 1))) << i;
  }
  EXPECT_EQ(slab.add(), 40u);
}

// Memory that the system took back reads as zero.
TEST_P(FrameSlabs, RetiredNeighboursGiveTheirMemoryBack) {
  FrameSlab slab(GetParam());
  const std::size_t bytes = slab.frame_bytes();
  for (std::uint32_t i = 0; i < 40; ++i) std::memset(slab.frame(slab.add()), 5, bytes);
  for (std::uint32_t i = 0; i < 40; ++i) slab.retire((i * 7 + 3) % 40);
  for (std::uint32_t i = 0; i < 40; ++i) EXPECT_TRUE(holds(slab, i, 0)) << i;
}

INSTANTIATE_TEST_SUITE_P(Bytes, FrameSlabs,
                         ::testing::Values(256, 4096, 5056, 12288, 33 * 1024, 2 << 20));

}  // namespace
}  // namespace perennial
