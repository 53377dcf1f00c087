// SPDX-License-Identifier: Apache-2.0
// The page cache while a commit is in flight: what it writes, copies, spills and loses.
#include "core/page_cache_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using storage::CommitRequest;
using storage::PageKind;
using storage::StatusCode;
using ::testing::HasSubstr;

TEST(PageCacheEpoch, WritesTheBytesOfItsBeginning) {
  TestCache t(8, 8, kQuiet);
  for (std::uint32_t i = 0; i < 3; ++i) t.write(weights_page(i), 1);
  CommitRequest request;
  t.cache.begin_epoch(request);
  t.write(weights_page(0), 2);
  t.write(weights_page(0), 3);
  t.write(weights_page(5), 4);
  EXPECT_EQ(t.cache.counters().copied_on_write, 1u);
  EXPECT_THROW(t.cache.begin_epoch(request), Error);
  ASSERT_TRUE(t.store.commit(request).ok());
  t.write(weights_page(1), 5);  // its bytes were taken: no copy
  EXPECT_EQ(t.cache.counters().copied_on_write, 1u);
  t.cache.end_epoch(true);
  EXPECT_EQ(t.store.content()[t.source.id(PageKey::of(weights_page(0)))],
            content_of(weights_page(0), 1));
  EXPECT_EQ(t.state(weights_page(0)), PageState::dirty);
  EXPECT_EQ(t.state(weights_page(1)), PageState::dirty);
  EXPECT_EQ(t.state(weights_page(2)), PageState::resident);
  request = {};
  t.cache.begin_epoch(request);
  EXPECT_EQ(request.pages.size(), 3u);
  ASSERT_TRUE(t.store.commit(request).ok());
  t.cache.end_epoch(true);
  EXPECT_EQ(t.store.content()[t.source.id(PageKey::of(weights_page(0)))],
            content_of(weights_page(0), 3));
  EXPECT_EQ(t.store.pages_written, 6u);
}

TEST(PageCacheEpoch, AFailedOneLosesNothing) {
  TestCache t(2, 8, kQuiet);
  for (std::uint32_t i = 0; i < 6; ++i) t.write(weights_page(i), 1, 1);
  ASSERT_TRUE(t.commit().ok());
  for (std::uint32_t i = 0; i < 6; ++i) t.write(weights_page(i), 2, 2);  // four are spilled
  CommitRequest request;
  t.cache.begin_epoch(request);
  ASSERT_EQ(request.pages.size(), 6u);
  EXPECT_EQ(request.pages[0].changed, 1u << 2);
  EXPECT_TRUE(request.pages[0].payload().ok());
  t.write(weights_page(3), 3, 3);
  t.cache.end_epoch(false);
  EXPECT_EQ(request.pages[1].payload().status().code(), StatusCode::invalid_argument);
  CommitRequest again;
  t.cache.begin_epoch(again);
  ASSERT_EQ(again.pages.size(), 6u);
  EXPECT_EQ(again.pages[0].changed, 1u << 2);
  EXPECT_EQ(again.pages[3].changed, (1u << 2) | (1u << 3));
  ASSERT_TRUE(t.store.commit(again).ok());
  t.cache.end_epoch(true);
  for (std::uint32_t i = 0; i < 6; ++i) {
    EXPECT_EQ(t.load(weights_page(i)), content_of(weights_page(i), i == 3 ? 3 : 2)) << i;
  }
}

TEST(PageCacheEpoch, TouchedExpertsSurviveSpilling) {
  TestCache t(1, 4, kQuiet);
  const std::uint64_t a = weights_page(0);
  t.write(a, 1, 0);
  ASSERT_TRUE(t.commit().ok());
  t.write(a, 2, 1);
  t.load(weights_page(1));
  t.write(a, 3, 3);
  CommitRequest request;
  t.cache.begin_epoch(request);
  EXPECT_EQ(request.pages[0].changed, 0b1010u);
  t.cache.end_epoch(false);
}

// In a cache that evicts nothing, pages that are dirty already take a shorter way.
TEST(PageCacheEpoch, WritesToDirtyPagesCountWithoutALimit) {
  TestCache t(kUnlimited, 4, kQuiet);
  const std::vector<std::uint64_t> both{weights_page(0), weights_page(1)};
  for (const std::uint64_t page : both) t.write(page, 1, 0);
  ASSERT_TRUE(t.commit().ok());
  for (const std::uint64_t page : both) t.write(page, 2, 1);
  const auto write_both = [&](std::uint32_t version) {
    PinSet pin;
    const std::vector<std::uint64_t> experts{1u << 2, 1u << 3};
    ASSERT_EQ(*t.cache.pin({.pages = both, .use = PinUse::write, .experts = experts}, pin), 2u);
    for (const std::uint64_t page : both) t.put(page, version);
  };
  write_both(3);
  CommitRequest request;
  t.cache.begin_epoch(request);
  ASSERT_EQ(request.pages.size(), 2u);
  EXPECT_EQ(request.pages[0].changed, 0b0110u);
  EXPECT_EQ(request.pages[1].changed, 0b1010u);
  write_both(4);  // copies first: the commit has what was there
  write_both(5);
  ASSERT_TRUE(t.store.commit(request).ok());
  t.cache.end_epoch(true);
  for (const std::uint64_t page : both) {
    EXPECT_EQ(t.store.content()[t.source.id(PageKey::of(page))], content_of(page, 3));
    EXPECT_EQ(t.load(page), content_of(page, 5));
  }
  CommitRequest again;
  t.cache.begin_epoch(again);
  ASSERT_EQ(again.pages.size(), 2u);
  EXPECT_EQ(again.pages[0].changed, 0b0100u);
  t.cache.end_epoch(false);
}

// Whoever begins a commit waits for a writer that took the shorter way.
TEST(PageCacheEpoch, WaitsForWritersWithoutPins) {
  TestCache t(kUnlimited, 4, kQuiet);
  const std::uint64_t a = weights_page(0);
  t.write(a, 1);
  std::atomic<bool> begun = false;
  CommitRequest request;
  PinSet pin;
  ASSERT_EQ(*t.cache.pin({.pages = {&a, 1}, .use = PinUse::write}, pin), 1u);
  std::thread other([&] {
    t.cache.begin_epoch(request);
    begun = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(begun);
  t.put(a, 2);
  pin.release();
  other.join();
  ASSERT_TRUE(t.store.commit(request).ok());
  t.cache.end_epoch(true);
  EXPECT_EQ(t.store.content()[t.source.id(PageKey::of(a))], content_of(a, 2));
}

TEST(PageCacheEpoch, WithoutAFreeFrameTheCopyGoesToTheSpillFile) {
  TestCache t(2, 4, kQuiet);
  const std::vector<std::uint64_t> both{weights_page(0), weights_page(1)};
  t.write(both[0], 1);
  t.write(both[1], 1);
  CommitRequest request;
  t.cache.begin_epoch(request);
  {
    PinSet pin;
    ASSERT_EQ(*t.cache.pin({.pages = both, .group = 2, .use = PinUse::write}, pin), 1u);
    t.put(both[0], 2);
    t.put(both[1], 2);
  }
  const PagerCounters c = t.cache.counters();
  EXPECT_EQ(c.copied_on_write, 2u);
  EXPECT_EQ(c.spilled, 2u);
  EXPECT_EQ(c.waits, 2u);
  EXPECT_EQ(c.peak_bytes, 2 * kFrameBytes);
  ASSERT_TRUE(t.store.commit(request).ok());
  t.cache.end_epoch(true);
  for (const std::uint64_t page : both) {
    EXPECT_EQ(t.store.content()[t.source.id(PageKey::of(page))], content_of(page, 1));
    EXPECT_EQ(t.load(page), content_of(page, 2));
  }
}

TEST(PageCacheEpoch, CopiesMakeWayForPins) {
  // The frames that hold copies for a commit nobody works on are not waited for.
  TestCache t(4, 8, kQuiet);
  t.write(weights_page(0), 1);
  t.write(weights_page(1), 1);
  CommitRequest request;
  t.cache.begin_epoch(request);
  t.write(weights_page(0), 2);
  t.write(weights_page(1), 2);
  PinSet pin;
  const std::vector<std::uint64_t> four{weights_page(4), weights_page(5), weights_page(6),
                                        weights_page(7)};
  ASSERT_EQ(*t.cache.pin({.pages = four, .group = 4}, pin), 1u);
  pin.release();
  ASSERT_TRUE(t.store.commit(request).ok());
  t.cache.end_epoch(true);
  EXPECT_EQ(t.store.content()[t.source.id(PageKey::of(weights_page(1)))],
            content_of(weights_page(1), 1));
  EXPECT_EQ(t.load(weights_page(1)), content_of(weights_page(1), 2));
}

TEST(PageCacheEpoch, DroppedPagesAreWrittenThenRemoved) {
  TestCache t(4, 8, kQuiet);
  for (std::uint32_t i = 0; i < 6; ++i) t.write(state_page(i), 1);
  CommitRequest request;
  t.cache.begin_epoch(request);
  {
    const PageCache::Exclusive exclusive(t.cache);
    t.cache.drop(PageKind::state, 0);
  }
  ASSERT_TRUE(t.store.commit(request).ok());
  t.cache.end_epoch(true);
  EXPECT_EQ(t.store.content().size(), 6u);
  EXPECT_EQ(t.store.content().begin()->second, content_of(state_page(0), 1));
  CommitRequest removing;
  t.cache.begin_epoch(removing);
  EXPECT_EQ(removing.removed_pages.size(), 6u);
  EXPECT_TRUE(removing.pages.empty());
  t.cache.end_epoch(false);  // asked for again
  ASSERT_TRUE(t.commit().ok());
  EXPECT_TRUE(t.store.content().empty());
  EXPECT_EQ(t.load(state_page(3)), content_of(state_page(3), 0));
}

TEST(PageCacheEpoch, PayloadsOutliveTheCache) {
  CommitRequest request;
  {
    TestCache t(4, 4, kQuiet);
    t.write(weights_page(0), 1);
    t.cache.begin_epoch(request);
  }
  EXPECT_EQ(request.pages[0].payload().status().code(), StatusCode::invalid_argument);
}

}  // namespace
}  // namespace perennial
