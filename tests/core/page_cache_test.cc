// SPDX-License-Identifier: Apache-2.0
// The page cache, one thread at a time: states, counters, failures, commits, an oracle of contents.
#include <random>

#include "core/page_cache_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using storage::CommitRequest;
using storage::PageKind;
using storage::StatusCode;
using ::testing::HasSubstr;

TEST(PageCache, PagesGoThroughTheirStates) {
  TestCache t(1, 4, kQuiet);
  const std::uint64_t a = weights_page(0), b = weights_page(1);
  EXPECT_EQ(t.state(a), PageState::initial);
  EXPECT_EQ(t.load(a), content_of(a, 0));
  EXPECT_EQ(t.state(a), PageState::resident);
  t.load(b);
  EXPECT_EQ(t.state(a), PageState::initial) << "never written: the recipe still has it";
  t.write(a, 1);
  EXPECT_EQ(t.state(a), PageState::dirty);
  t.load(b);
  EXPECT_EQ(t.state(a), PageState::spilled);
  EXPECT_EQ(t.load(a), content_of(a, 1));
  EXPECT_EQ(t.state(a), PageState::dirty);
  CommitRequest request;
  t.cache.begin_epoch(request);
  EXPECT_EQ(t.state(a), PageState::writing);
  ASSERT_EQ(request.pages.size(), 1u);
  EXPECT_TRUE(t.store.commit(request).ok());
  t.cache.end_epoch(true);
  EXPECT_EQ(t.state(a), PageState::resident);
  t.load(b);
  EXPECT_EQ(t.state(a), PageState::absent);
  EXPECT_EQ(t.load(a), content_of(a, 1));
  const PagerCounters c = t.cache.counters();
  EXPECT_EQ(c.initialised, 5u);
  EXPECT_EQ(c.spilled, 1u);
  EXPECT_EQ(c.unspilled, 1u);
  EXPECT_EQ(c.read, 1u);
  EXPECT_EQ(c.evicted, 6u);
  EXPECT_EQ(c.peak_bytes, kFrameBytes);
  EXPECT_EQ(c.spill_file_bytes, 0u);
  EXPECT_EQ(c.spill_peak_bytes, kFrameBytes);
}

TEST(PageCache, AValidSpilledCopyIsNotWrittenTwice) {
  TestCache t(1, 4, kQuiet);
  const std::uint64_t a = weights_page(0), b = weights_page(1);
  t.write(a, 1);
  for (int i = 0; i < 3; ++i) {
    t.load(b);
    EXPECT_EQ(t.load(a), content_of(a, 1));
  }
  EXPECT_EQ(t.cache.counters().spilled, 1u);
  t.write(a, 2);
  t.load(b);
  EXPECT_EQ(t.load(a), content_of(a, 2));
  EXPECT_EQ(t.cache.counters().spilled, 2u);
}

TEST(PageCache, HitsCountPagesOnceACall) {
  TestCache t(8, 8, kQuiet);
  PinSet pin;
  const std::vector<std::uint64_t> ids{weights_page(0), weights_page(1), weights_page(0),
                                       weights_page(1)};
  EXPECT_EQ(*t.cache.pin({.pages = ids, .group = 2}, pin), 2u);
  EXPECT_EQ(t.cache.counters().hits, 0u);
  EXPECT_EQ(*t.cache.pin({.pages = ids, .group = 2, .use = PinUse::again}, pin), 2u);
  EXPECT_EQ(t.cache.counters().hits, 2u);
  EXPECT_EQ(t.source.filled, 2);
}

TEST(PageCache, WholeGroupsArePinnedAsManyAsFit) {
  TestCache t(5, 32, kQuiet);
  std::vector<std::uint64_t> ids;
  for (std::uint32_t i = 0; i < 12; ++i) ids.push_back(weights_page(i));
  PinSet pin;
  EXPECT_EQ(*t.cache.pin({.pages = ids, .group = 2}, pin), 2u);
  EXPECT_EQ(*t.cache.pin({.pages = ids, .group = 3}, pin), 1u);
  EXPECT_EQ(*t.cache.pin({.pages = ids, .group = 5}, pin), 1u);
  pin.release();
  // Pages that are there already and needed by a later group make way for the first.
  for (std::uint32_t i = 6; i < 11; ++i) t.load(weights_page(i));
  EXPECT_EQ(*t.cache.pin({.pages = ids, .group = 4}, pin), 1u);
  EXPECT_EQ(t.read(ids[3]), content_of(ids[3], 0));
  const auto refused = t.cache.pin({.pages = ids, .group = 6}, pin);
  EXPECT_EQ(refused.status().code(), StatusCode::invalid_argument);
  EXPECT_THAT(refused.status().message(), HasSubstr("budget of 1280 bytes"));
  EXPECT_EQ(t.cache.counters().peak_bytes, 5 * kFrameBytes);
}

TEST(PageCache, AFailedReadIsNamedAndTouchesNothingElse) {
  TestCache t(4, 8, kQuiet);
  for (std::uint32_t i = 0; i < 6; ++i) t.write(weights_page(i), i + 1);
  ASSERT_TRUE(t.commit().ok());
  const auto broken = t.source.id(PageKey::of(weights_page(0)));
  t.store.fail(broken);
  const std::vector<std::uint64_t> ids{weights_page(0), weights_page(1)};
  PinSet pin;
  for (int i = 0; i < 2; ++i) {
    const auto failed = t.cache.pin({.pages = ids, .group = 2}, pin);
    EXPECT_EQ(failed.status().code(), StatusCode::io_error);
    EXPECT_THAT(failed.status().message(), HasSubstr(to_string(broken)));
    EXPECT_EQ(t.state(weights_page(0)), PageState::absent);
    EXPECT_EQ(t.load(weights_page(1)), content_of(weights_page(1), 2));
  }
  t.store.heal();
  EXPECT_EQ(t.load(weights_page(0)), content_of(weights_page(0), 1));
}

TEST(PageCache, NowhereToSpillLosesNothing) {
  TestCache t(2, 8, kQuiet);
  t.store.scratch = "/nonexistent/perennial";
  t.write(weights_page(0), 1);
  t.write(weights_page(1), 2);
  PinSet pin;
  const std::uint64_t other = weights_page(2);
  const auto failed = t.cache.pin({.pages = {&other, 1}}, pin);
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(failed.status().message(), HasSubstr("/nonexistent/perennial"));
  EXPECT_THAT(failed.status().message(), HasSubstr("weights page pool 0 row"));
  EXPECT_EQ(t.load(weights_page(0)), content_of(weights_page(0), 1));
  ASSERT_TRUE(t.commit().ok());  // makes room without spilling
  EXPECT_EQ(t.load(other), content_of(other, 0));
  EXPECT_EQ(t.load(weights_page(1)), content_of(weights_page(1), 2));
}

TEST(PageCachePrefetch, LoadsAheadAndSparesWhatIsNeeded) {
  TestCache t(4, 16, kQuiet);
  for (std::uint32_t i = 0; i < 8; ++i) t.write(weights_page(i), 1);
  ASSERT_TRUE(t.commit().ok());
  PinSet pin;
  const std::vector<std::uint64_t> batch{weights_page(0), weights_page(1)};
  ASSERT_EQ(*t.cache.pin({.pages = batch, .group = 2}, pin), 1u);
  const std::vector<std::uint64_t> next{weights_page(2), weights_page(3)};
  t.cache.prefetch(next);
  t.cache.wait_idle();
  const std::uint64_t before = t.cache.counters().read;
  EXPECT_EQ(t.cache.counters().prefetched, 2u);
  // Full of pinned pages and pages named ahead: a further prefetch takes nothing from them.
  const std::vector<std::uint64_t> later{weights_page(4), weights_page(5)};
  t.cache.prefetch(later);
  t.cache.wait_idle();
  EXPECT_EQ(t.cache.counters().prefetched, 2u);
  ASSERT_EQ(*t.cache.pin({.pages = next, .group = 2}, pin), 1u);
  EXPECT_EQ(t.read(next[1]), content_of(next[1], 1));
  EXPECT_EQ(t.cache.counters().read, before);
  EXPECT_EQ(t.cache.counters().prefetch_hits, 2u);
}

// Random operations against maps of what every page and the store must hold.
class Oracle : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(Oracle, ContentsAreAlwaysTheLastWritten) {
  const std::uint32_t ahead = GetParam();
  constexpr std::uint32_t kPages = 24, kFrames = 10;
  TestCache t(kFrames, kPages, {.readers = 2, .spill_ahead = ahead});
  std::mt19937_64 random(7 + ahead);
  std::map<std::uint64_t, std::uint32_t> now;  // versions; 0 = initial
  std::set<std::uint64_t> unstored;
  std::map<storage::PageId, Words> expected, stored;
  std::optional<CommitRequest> epoch;
  std::set<std::uint64_t> of_epoch;
  std::uint32_t version = 0;
  std::uint64_t written = 0;
  const auto any = [&] {
    const auto page = static_cast<std::uint32_t>(random() % kPages);
    return random() % 2 == 0 ? weights_page(page) : state_page(page);
  };
  for (int step = 0; step < 6000; ++step) {
    std::vector<std::uint64_t> pages(1 + random() % 12);
    for (std::uint64_t& page : pages) page = any();
    PinSet pin;
    const std::uint64_t choice = random() % 100;
    if (choice < 45) {
      const auto groups = t.cache.pin({.pages = pages, .group = 1}, pin);
      ASSERT_TRUE(groups.ok()) << groups.status().to_string();
      ASSERT_GE(*groups, 1u);
      for (std::size_t i = 0; i < *groups; ++i) {
        ASSERT_EQ(t.read(pages[i]), content_of(pages[i], now[pages[i]])) << "step " << step;
      }
    } else if (choice < 80) {
      const auto groups = t.cache.pin({.pages = pages, .group = 1, .use = PinUse::write}, pin);
      ASSERT_TRUE(groups.ok()) << groups.status().to_string();
      for (std::size_t i = 0; i < *groups; ++i) {
        t.put(pages[i], now[pages[i]] = ++version);
        unstored.insert(pages[i]);
      }
    } else if (choice < 88) {
      t.cache.prefetch(pages);
    } else if (!epoch) {
      epoch.emplace();
      t.cache.begin_epoch(*epoch);
      ASSERT_EQ(epoch->pages.size(), unstored.size()) << "pages written = pages touched";
      expected = stored;
      for (const std::uint64_t page : unstored) {
        expected[t.source.id(PageKey::of(page))] = content_of(page, now[page]);
      }
      of_epoch = std::exchange(unstored, {});
      written += of_epoch.size();
    } else {
      const bool success = random() % 3 > 0;
      if (success) {
        ASSERT_TRUE(t.store.commit(*epoch).ok());
        stored = expected;
      } else {
        for (std::size_t i = 0; i < epoch->pages.size() / 2; ++i) {
          ASSERT_TRUE(epoch->pages[i].payload().ok());
        }
        unstored.merge(of_epoch);
      }
      t.cache.end_epoch(success);
      epoch.reset();
      ASSERT_EQ(t.store.content(), stored) << "step " << step;
    }
    pin.release();
    ASSERT_EQ(t.cache.counters().dirty_bytes, unstored.size() * kFrameBytes) << "step " << step;
  }
  const PagerCounters c = t.cache.counters();
  EXPECT_LE(c.peak_bytes, kFrames * kFrameBytes);
  EXPECT_GT(c.copied_on_write, 100u);
  EXPECT_GT(c.unspilled, 100u);
  EXPECT_GT(c.read, 100u);
}

INSTANTIATE_TEST_SUITE_P(SpilledAhead, Oracle, ::testing::Values(0u, 8u));

TEST(PageCache, WideningKeepsContentsAndTheCommitInFlight) {
  TestCache t(3, 6, kQuiet);
  for (std::uint32_t i = 0; i < 6; ++i) t.write(weights_page(i), i + 1);
  CommitRequest request;
  t.cache.begin_epoch(request);
  t.write(weights_page(5), 50);
  {
    const PageCache::Exclusive exclusive(t.cache);
    // Rows of 2 pages become rows of 3; names of pages move with them in a real pool, so here the
    // content is what is looked at.
    t.cache.widen_region(0, 9, [](std::uint32_t page) { return page / 2 * 3 + page % 2; });
  }
  for (std::uint32_t i = 0; i < 6; ++i) {
    const std::uint64_t moved = weights_page(i / 2 * 3 + i % 2);
    EXPECT_EQ(t.load(moved), content_of(weights_page(i), i == 5 ? 50 : i + 1)) << i;
  }
  ASSERT_TRUE(t.store.commit(request).ok());
  t.cache.end_epoch(true);
  EXPECT_EQ(t.state(weights_page(7)), PageState::dirty);
  EXPECT_EQ(t.store.content().rbegin()->second, content_of(weights_page(5), 6));
}

}  // namespace
}  // namespace perennial
