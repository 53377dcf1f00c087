// SPDX-License-Identifier: Apache-2.0
// The page cache under threads: readers, a writer, eviction, spilling, prefetch and commits at
// once.
#include <random>
#include <shared_mutex>

#include "core/page_cache_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using storage::CommitRequest;
using ::testing::HasSubstr;

// The version that content_of() was given; fails the test for anything else.
std::uint32_t version_of(std::uint64_t page, const Words& words) {
  constexpr std::uint32_t kFactor = 0x01000193U;
  std::uint32_t inverse = kFactor;
  for (int i = 0; i < 5; ++i) inverse *= 2 - kFactor * inverse;
  const std::uint32_t version = (words[0] ^ content_of(page, 0)[0]) * inverse;
  EXPECT_EQ(words, content_of(page, version)) << "page " << page;
  return version;
}

std::vector<std::uint64_t> some_pages(std::mt19937_64& random, std::uint32_t pages,
                                      std::size_t count) {
  std::set<std::uint64_t> chosen;
  while (chosen.size() < count) {
    chosen.insert(weights_page(static_cast<std::uint32_t>(random() % pages)));
  }
  return {chosen.begin(), chosen.end()};
}

TEST(PageCacheThreads, CallersThatMissTheSamePageShareOneRead) {
  TestCache t(4, 8);
  t.write(weights_page(0), 7);
  ASSERT_TRUE(t.commit().ok());
  for (std::uint32_t i = 1; i < 8; ++i) t.load(weights_page(i));
  ASSERT_EQ(t.state(weights_page(0)), PageState::absent);
  t.store.delay = std::chrono::milliseconds(20);
  t.store.reads = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back(
        [&] { EXPECT_EQ(t.load(weights_page(0)), content_of(weights_page(0), 7)); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(t.store.reads, 1);
}

TEST(PageCacheThreads, NobodyStarvesOnABudgetOfOneGroup) {
  constexpr std::uint32_t kFrames = 6, kPages = 40;
  TestCache t(kFrames, kPages);
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937_64 random(seed);
      PinSet pin;
      for (int i = 0; i < 100; ++i) {
        const auto pages = some_pages(random, kPages, kFrames);
        const auto groups = t.cache.pin({.pages = pages, .group = kFrames}, pin);
        ASSERT_TRUE(groups.ok()) << groups.status().to_string();
        ASSERT_EQ(*groups, 1u);
        if (i % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
        for (const std::uint64_t page : pages) ASSERT_EQ(t.read(page), content_of(page, 0));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const PagerCounters c = t.cache.counters();
  EXPECT_GT(c.waits, 0u);
  EXPECT_GT(c.wait_ns, 0u);
  EXPECT_LE(c.peak_bytes, kFrames * kFrameBytes);
}

TEST(PageCacheThreads, OneFailedReadStrikesOnlyThoseWhoNeedIt) {
  TestCache t(4, 16);
  for (std::uint32_t i = 0; i < 16; ++i) t.write(weights_page(i), i);
  ASSERT_TRUE(t.commit().ok());
  t.store.fail(t.source.id(PageKey::of(weights_page(3))));
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937_64 random(seed);
      PinSet pin;
      for (int i = 0; i < 300; ++i) {
        const auto pages = some_pages(random, 16, 2);
        const bool broken = pages[0] == weights_page(3) || pages[1] == weights_page(3);
        const auto groups = t.cache.pin({.pages = pages, .group = 2}, pin);
        if (!groups.ok()) {
          ++failures;
          EXPECT_TRUE(broken) << groups.status().to_string();
          continue;
        }
        for (const std::uint64_t page : pages) {
          ASSERT_EQ(t.read(page), content_of(page, PageKey::of(page).page));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  t.store.heal();
  t.load(weights_page(3));
}

// Pairs of neighbouring pages are written together, so that a commit that is not an instant shows.
void storm(PageCacheOptions options, std::uint32_t frames, int steps) {
  constexpr std::uint32_t kPages = 48;
  TestCache t(frames, kPages, options);
  std::array<std::shared_mutex, kPages> content;  // of the frames: readers against the writer
  std::array<std::uint32_t, kPages> versions{};
  std::atomic<bool> done = false;
  std::atomic<std::uint32_t> steps_done = 0;
  std::atomic<int> commits = 0;
  std::vector<std::thread> threads;

  threads.emplace_back([&] {  // the trainer
    std::mt19937_64 random(1);
    PinSet pin;
    for (std::uint32_t step = 1; step <= static_cast<std::uint32_t>(steps) ||
                                 (commits < 40 && !::testing::Test::HasFailure());
         ++step) {
      std::vector<std::uint64_t> pages;
      const auto first = static_cast<std::uint32_t>(random() % (kPages / 2));
      for (std::uint32_t i = 0; i < 6; ++i) {
        const std::uint32_t pair = (first + i * 5) % (kPages / 2);
        pages.push_back(weights_page(2 * pair));
        pages.push_back(weights_page(2 * pair + 1));
      }
      const auto groups = t.cache.pin({.pages = pages, .group = 2, .use = PinUse::write}, pin);
      ASSERT_TRUE(groups.ok()) << groups.status().to_string();
      for (std::size_t i = 0; i < 2 * *groups; ++i) {
        const std::uint32_t page = PageKey::of(pages[i]).page;
        const std::unique_lock lock(content[page]);
        t.put(pages[i], versions[page] = step);
      }
      pin.release();
      ++steps_done;
    }
    done = true;
  });
  for (std::uint64_t seed = 10; seed < 13; ++seed) {  // those who serve
    threads.emplace_back([&, seed] {
      std::mt19937_64 random(seed);
      PinSet pin;
      while (!done) {
        const auto pages = some_pages(random, kPages, 3);
        if (random() % 4 == 0) t.cache.prefetch(some_pages(random, kPages, 4));
        const auto groups = t.cache.pin({.pages = pages, .group = 3}, pin);
        ASSERT_TRUE(groups.ok()) << groups.status().to_string();
        for (const std::uint64_t page : pages) {
          const std::shared_lock lock(content[PageKey::of(page).page]);
          ASSERT_EQ(t.read(page), content_of(page, versions[PageKey::of(page).page]));
        }
        pin.release();
      }
    });
  }
  threads.emplace_back([&] {  // commits, some of which fail
    std::mt19937_64 random(2);
    while (!done) {
      CommitRequest request;
      t.cache.begin_epoch(request);
      // Half of the commits are slow: the trainer meets pages whose bytes they still need.
      const std::uint32_t slow = random() % 2 == 0 ? steps_done + 8 : 0;
      while (!done && steps_done < slow) std::this_thread::yield();
      if (random() % 3 == 0) {
        for (std::size_t i = 0; i < request.pages.size() / 2; ++i) {
          ASSERT_TRUE(request.pages[i].payload().ok());
        }
        t.cache.end_epoch(false);
      } else {
        ASSERT_TRUE(t.store.commit(request).ok());
        t.cache.end_epoch(true);
        const auto stored = t.store.content();
        for (std::uint32_t page = 0; page < kPages; page += 2) {
          const auto one = stored.find(t.source.id(PageKey::of(weights_page(page))));
          const auto two = stored.find(t.source.id(PageKey::of(weights_page(page + 1))));
          ASSERT_EQ(one == stored.end(), two == stored.end());
          if (one == stored.end()) continue;
          ASSERT_EQ(version_of(weights_page(page), one->second),
                    version_of(weights_page(page + 1), two->second));
        }
      }
      ++commits;
      if (random() % 8 == 0) {  // what changes the cache's shape waits for its turn
        const PageCache::Exclusive exclusive(t.cache);
        t.cache.add_region(t.source, 1, 1);
      }
    }
  });
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(t.commit().ok());
  const auto stored = t.store.content();
  for (std::uint32_t page = 0; page < kPages; ++page) {
    const auto found = stored.find(t.source.id(PageKey::of(weights_page(page))));
    ASSERT_EQ(found != stored.end(), versions[page] > 0);
    if (versions[page] > 0) {
      EXPECT_EQ(found->second, content_of(weights_page(page), versions[page]));
    }
    EXPECT_EQ(t.load(weights_page(page)), content_of(weights_page(page), versions[page]));
  }
  const PagerCounters c = t.cache.counters();
  if (frames == kUnlimited) {
    EXPECT_EQ(c.evicted, 0u);
    EXPECT_GE(c.copied_on_write, 20u);
    return;
  }
  EXPECT_LE(c.peak_bytes, frames * kFrameBytes);
  EXPECT_GT(c.evicted, 100u);
  EXPECT_GT(c.spilled, 20u);
  // With few frames most pages are spilled, and the spilled copy serves the commit.
  EXPECT_GE(c.copied_on_write, 2 * frames >= kPages ? 20u : 0u);
}

TEST(PageCacheThreads, EverythingAtOnceWithRoom) { storm({.readers = 3}, 24, 1500); }
TEST(PageCacheThreads, EverythingAtOnceWithoutALimit) { storm({.readers = 3}, kUnlimited, 1500); }
TEST(PageCacheThreads, EverythingAtOnceWithoutRoom) { storm({.readers = 2}, 5, 600); }
TEST(PageCacheThreads, EverythingAtOnceSpilledAhead) {
  storm({.readers = 3, .spill_ahead = 4}, 12, 800);
}

}  // namespace
}  // namespace perennial
