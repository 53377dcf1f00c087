// SPDX-License-Identifier: Apache-2.0
// Ids, record layout, and the way from an id to its frame.
#include "perennial/kernels/expert_id.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace perennial::kernels {
namespace {

TEST(ExpertId, RoundTripsTheWholeRange) {
  for (const std::uint32_t row : {0u, 1u, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFFu}) {
    for (const std::uint32_t col : {0u, 1u, 0x80000000u, 0xFFFFFFFFu}) {
      const std::int64_t id = expert_id(row, col);
      EXPECT_EQ(row_of(id), row);
      EXPECT_EQ(col_of(id), col);
    }
  }
  EXPECT_EQ(expert_id(1, 2), (std::int64_t{1} << 32) + 2);
}

TEST(ExpertLayout, PadsToSixteenFloats) {
  EXPECT_EQ((ExpertLayout{1, 1, false}.stride()), 16);
  EXPECT_EQ((ExpertLayout{8, 8, false}.stride()), 16);
  EXPECT_EQ((ExpertLayout{8, 9, false}.stride()), 32);
  // 64 bytes are 32 elements of bf16.
  EXPECT_EQ((ExpertLayout{8, 9, false, 1, WeightType::bf16}.stride()), 32);
  EXPECT_EQ((ExpertLayout{16, 17, false, 1, WeightType::bf16}.stride()), 64);
  EXPECT_EQ((ExpertLayout{16, 17, false, 1, WeightType::bf16}.record_bytes()), 128);
  EXPECT_EQ((ExpertLayout{16, 17, false, 1, WeightType::bf16}.record_floats()), 32);
  const ExpertLayout wide{7, 3, true, 2};
  EXPECT_EQ(wide.v(), 14);
  EXPECT_EQ(wide.w(), 20);
  EXPECT_EQ(wide.used(), 34);
  EXPECT_EQ(wide.record_bytes(), 48 * 4);
  const ExpertLayout glu{7, 3, true};
  EXPECT_EQ(glu.v(), 7);
  EXPECT_EQ(glu.w(), 10);
  EXPECT_EQ(glu.used(), 17);
  EXPECT_EQ(glu.stride(), 32);
}

TEST(FrameTable, FindsRecordsAcrossGenerations) {
  std::vector<std::vector<float>> pages(12, std::vector<float>(3 * 16));
  std::vector<float*> first, second;
  for (std::size_t i = 0; i < 4; ++i) first.push_back(pages[i].data());
  for (std::size_t i = 4; i < 10; ++i) second.push_back(pages[i].data());
  const std::vector<PageSpan> spans{
      {.first_row = 5, .rows = 2, .tiles = 2, .frames = first.data()},
      {.first_row = 0xFFFFFFFEu, .rows = 2, .tiles = 3, .frames = second.data()}};
  const FrameTable table{.spans = spans, .tile = 3, .record_floats = 16};
  EXPECT_EQ(table.record(expert_id(5, 0)), pages[0].data());
  EXPECT_EQ(table.record(expert_id(6, 4)), pages[3].data() + 16);
  EXPECT_EQ(table.record(expert_id(0xFFFFFFFEu, 2)), pages[4].data() + 32);
  EXPECT_EQ(table.record(expert_id(0xFFFFFFFFu, 8)), pages[9].data() + 32);
}

TEST(FrameTable, FindsRecordsAcrossManyGenerations) {
  for (std::uint32_t generations = 1; generations <= 9; ++generations) {
    std::vector<float> page(16);
    std::vector<std::vector<float*>> frames;
    std::vector<PageSpan> spans;
    for (std::uint32_t g = 0; g < generations; ++g) {
      frames.push_back({page.data() + g, page.data() + g});
      spans.push_back({.first_row = 2 * g, .rows = 2, .tiles = 1, .frames = frames.back().data()});
    }
    const FrameTable table{.spans = spans, .tile = 1, .record_floats = 1};
    for (std::uint32_t row = 0; row < 2 * generations; ++row) {
      EXPECT_EQ(table.record(expert_id(row, 0)), page.data() + row / 2)
          << row << " of " << generations << " generations";
    }
  }
}

// No memory is read here: only the address matters.
TEST(FrameTable, OffsetsDoNotOverflow32Bits) {
  float* frame = reinterpret_cast<float*>(std::uintptr_t{0x10000});
  const PageSpan span{.first_row = 0, .rows = 1, .tiles = 1, .frames = &frame};
  const FrameTable table{.spans = {&span, 1}, .tile = 1u << 21, .record_floats = 4096};
  const auto address = reinterpret_cast<std::uintptr_t>(table.record(expert_id(0, (1u << 21) - 1)));
  EXPECT_EQ(address, 0x10000 + ((std::uint64_t{1} << 21) - 1) * 4096 * sizeof(float));
}

}  // namespace
}  // namespace perennial::kernels
