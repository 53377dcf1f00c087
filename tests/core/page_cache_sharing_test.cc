// SPDX-License-Identifier: Apache-2.0
// Sources that share a page cache: pages of several sizes within one budget, frames that are lent,
// one commit of all.
#include <random>

#include "core/page_cache_testing.h"

namespace perennial {
namespace {

using namespace perennial::testing;
using storage::CommitRequest;
using storage::PageKind;
using storage::StatusCode;

// A pool with pages of `words` words of weights, and of half as many of state.
class Sized : public PageSource {
 public:
  Sized(std::uint32_t pool, std::uint32_t words) : pool_(pool), words_(words) {}
  storage::PageId id(PageKey page) const override {
    return {page.kind, pool_, page.region * 1000 + page.page, 0};
  }
  storage::PageShape shape(PageKind kind) const override {
    return {storage::DType::f32, 1, words(kind)};
  }
  void fill_initial(PageKey page, std::span<std::byte> bytes) const override {
    fill(page, 0, bytes);
  }
  std::uint32_t words(PageKind kind) const {
    return kind == PageKind::weights ? words_ : words_ / 2;
  }
  // What a version of a page of the cache (with the pool's own number of the region) holds.
  void fill(PageKey page, std::uint32_t version, std::span<std::byte> bytes) const {
    const Words content = expected(page, version);
    std::memcpy(bytes.data(), content.data(), bytes.size());
  }
  Words expected(PageKey page, std::uint32_t version) const {
    Words content(words(page.kind));
    for (std::uint32_t i = 0; i < content.size(); ++i) {
      content[i] = (pool_ * 7919 + page.region * 104729 + page.page * 31 +
                    static_cast<std::uint32_t>(page.kind) * 17 + i) ^
                   (version * 0x01000193U);
    }
    return content;
  }

 private:
  std::uint32_t pool_, words_;
};

// Takes all payloads, and keeps them.
class Disk : public MapStore {
 public:
  storage::Status read_page(const storage::PageId& id,
                            std::span<std::byte> payload) const override {
    const std::lock_guard lock(mutex_);
    const Words& words = pages.at(id);
    EXPECT_EQ(words.size() * 4, payload.size());
    std::memcpy(payload.data(), words.data(), payload.size());
    return {};
  }
  void take(const CommitRequest& request) {
    const storage::PageId* last = nullptr;
    for (const storage::PageWrite& write : request.pages) {
      EXPECT_TRUE(last == nullptr || *last < write.id)
          << to_string(write.id) << " after " << to_string(*last);
      last = &write.id;
      const auto payload = write.payload();
      ASSERT_TRUE(payload.ok()) << payload.status().to_string();
      ASSERT_EQ(payload->size(), write.shape.payload_bytes());
      Words words(payload->size() / 4);
      std::memcpy(words.data(), payload->data(), payload->size());
      const std::lock_guard lock(mutex_);
      pages[write.id] = words;
    }
    const std::lock_guard lock(mutex_);
    for (const storage::PageId& id : request.removed_pages) pages.erase(id);
  }
  std::map<storage::PageId, Words> pages;

 private:
  mutable std::mutex mutex_;
};

struct Shared {
  explicit Shared(std::uint64_t budget, const PageCacheOptions& options = {})
      : cache(&disk, budget, options) {}
  std::uint32_t add(const Sized& source, std::uint32_t number, std::uint32_t pages) {
    const PageCache::Exclusive alone(cache);
    return cache.add_region(source, number, pages);
  }
  Words content(PageKey page, std::uint32_t words) const {
    Words content(words);
    std::memcpy(content.data(), cache.frames(page.kind, page.region)[page.page], 4 * words);
    return content;
  }
  // Every page of a region into a frame, one after another.
  void touch(std::uint32_t region, std::uint32_t pages, PageKind kind = PageKind::weights) {
    for (std::uint32_t i = 0; i < pages; ++i) {
      const std::uint64_t page = PageKey{kind, region, i}.packed();
      PinSet pin;
      ASSERT_TRUE(cache.pin({.pages = {&page, 1}}, pin).ok());
    }
  }
  std::uint32_t in_frames(std::uint32_t region, std::uint32_t pages,
                          PageKind kind = PageKind::weights) const {
    std::uint32_t count = 0;
    for (std::uint32_t i = 0; i < pages; ++i) {
      if (in_frame(cache.state({kind, region, i}))) ++count;
    }
    return count;
  }

  Disk disk;
  PageCache cache;
};

TEST(PageCacheSharing, AnIdleSourceLendsItsFrames) {
  // Of equal size, and of another: 32 frames of 1,024 bytes, or 16 of 2,048.
  for (const std::uint32_t words : {256u, 512u}) {
    SCOPED_TRACE(words);
    const Sized idle(0, 256), busy(1, words);
    Shared s(32 * 1024, kQuiet);
    const std::uint32_t a = s.add(idle, 0, 32), b = s.add(busy, 0, 200);
    s.touch(a, 32);
    ASSERT_EQ(s.in_frames(a, 32), 32u);
    for (int round = 0; round < 3; ++round) s.touch(b, 200);
    EXPECT_EQ(s.in_frames(a, 32), 0u) << "all of its frames serve the other";
    EXPECT_EQ(s.in_frames(b, 200), 32u * 256 / words);
    EXPECT_EQ(s.cache.counters().resident_bytes, 32u * 1024);
    // And back.
    for (int round = 0; round < 4; ++round) s.touch(a, 32);
    EXPECT_EQ(s.in_frames(a, 32), 32u);
    EXPECT_EQ(s.cache.counters().peak_bytes, 32u * 1024);
  }
}

TEST(PageCacheSharing, BusySizesKeepTheirShares) {
  const Sized one(0, 256), two(1, 512);
  Shared s(48 * 1024, kQuiet);
  const std::uint32_t a = s.add(one, 0, 100), b = s.add(two, 0, 100);
  for (std::uint32_t i = 0; i < 400; ++i) {
    for (const std::uint32_t region : {a, b}) {
      const std::uint64_t page = PageKey{PageKind::weights, region, i % 100}.packed();
      PinSet pin;
      ASSERT_TRUE(s.cache.pin({.pages = {&page, 1}}, pin).ok());
    }
  }
  EXPECT_GE(s.in_frames(a, 100), 8u);
  EXPECT_GE(s.in_frames(b, 100), 8u);
}

TEST(PageCacheSharing, TheSmallestBudgetOfEachGoesRound) {
  // A group of 3 small pages, or one of 2 large ones: either needs all of the budget.
  const Sized small(0, 128), large(1, 192);
  Shared s(3 * 512, kQuiet);
  const std::uint32_t a = s.add(small, 0, 9), b = s.add(large, 0, 4);
  std::vector<std::uint64_t> of_a, of_b;
  for (std::uint32_t i = 0; i < 9; ++i) of_a.push_back(PageKey{PageKind::weights, a, i}.packed());
  for (std::uint32_t i = 0; i < 4; ++i) of_b.push_back(PageKey{PageKind::weights, b, i}.packed());
  PinSet pin;
  for (int round = 0; round < 20; ++round) {
    const std::span<const std::uint64_t> three = std::span(of_a).subspan(3 * (round % 3), 3);
    const auto first = s.cache.pin({.pages = three, .group = 3, .use = PinUse::write}, pin);
    ASSERT_TRUE(first.ok()) << first.status().to_string();
    const std::span<const std::uint64_t> two = std::span(of_b).subspan(2 * (round % 2), 2);
    const auto second = s.cache.pin({.pages = two, .group = 2, .use = PinUse::write}, pin);
    ASSERT_TRUE(second.ok()) << second.status().to_string();
    EXPECT_EQ(*second, 1u);
  }
  EXPECT_EQ(s.cache.pin({.pages = of_a, .group = 4}, pin).status().code(),
            StatusCode::invalid_argument);
  EXPECT_LE(s.cache.counters().peak_bytes, 3u * 512);
}

TEST(PageCacheSharing, OneCommitOfAllAscends) {
  const Sized one(7, 64), two(3, 96);
  Shared s(0, kQuiet);
  const std::uint32_t a = s.add(one, 0, 3), b = s.add(two, 0, 3), c = s.add(one, 1, 3);
  std::vector<std::uint64_t> pages;
  for (const std::uint32_t region : {c, a, b}) {
    for (const PageKind kind : kPageKinds) pages.push_back(PageKey{kind, region, 1}.packed());
  }
  PinSet pin;
  ASSERT_TRUE(s.cache.pin({.pages = pages, .use = PinUse::write}, pin).ok());
  pin.release();
  for (const bool success : {false, true}) {
    CommitRequest request;
    s.cache.begin_epoch(request);
    ASSERT_EQ(request.pages.size(), 6u);
    EXPECT_EQ(request.pages.front().id, (storage::PageId{PageKind::weights, 3, 1, 0}));
    EXPECT_EQ(request.pages.back().id, (storage::PageId{PageKind::state, 7, 1001, 0}));
    if (success) s.disk.take(request);
    s.cache.end_epoch(success);
  }
  EXPECT_EQ(s.disk.pages.at({PageKind::state, 3, 1, 0}), two.expected({PageKind::state, 0, 1}, 0));
  CommitRequest nothing;
  s.cache.begin_epoch(nothing);
  EXPECT_TRUE(nothing.pages.empty());
  s.cache.end_epoch(true);
}

TEST(PageCacheSharing, ASourceThatEndsLeavesTheCommitInFlightAndTheStore) {
  Shared s(16 * 1024, kQuiet);
  const Sized stays(0, 64);
  const std::uint32_t a = s.add(stays, 0, 2);
  CommitRequest request;
  {
    const Sized ends(1, 64);
    const std::uint32_t b = s.add(ends, 0, 4);
    std::vector<std::uint64_t> pages{PageKey{PageKind::weights, a, 0}.packed()};
    for (std::uint32_t i = 0; i < 4; ++i) pages.push_back(PageKey{PageKind::state, b, i}.packed());
    PinSet pin;
    ASSERT_TRUE(s.cache.pin({.pages = pages, .use = PinUse::write}, pin).ok());
    pin.release();
    s.cache.begin_epoch(request);
    const PageCache::Exclusive alone(s.cache);
    s.cache.drop(PageKind::state, b);  // to be removed by the next commit, of a source that ends
    s.cache.remove_region(b);
  }
  s.disk.take(request);
  s.cache.end_epoch(true);
  EXPECT_EQ(s.disk.pages.size(), 5u);
  CommitRequest next;
  s.cache.begin_epoch(next);
  EXPECT_TRUE(next.pages.empty());
  EXPECT_TRUE(next.removed_pages.empty());
  s.cache.end_epoch(true);
  const Sized another(2, 32);
  EXPECT_EQ(s.add(another, 0, 8), 1u) << "its number is used again";
  s.touch(1, 8);
  EXPECT_EQ(s.content({PageKind::weights, 1, 5}, 32),
            another.expected({PageKind::weights, 0, 5}, 0));
  EXPECT_LE(s.cache.counters().resident_bytes, 16u * 1024);
}

// Random operations on three sources against a map of versions, with commits, sources that come and
// go, and sometimes nowhere to spill.
TEST(PageCacheSharing, ContentsAreAlwaysTheLastWritten) {
  constexpr std::uint32_t kPages = 20;
  constexpr std::uint64_t kBudget = 5 * 1100;
  const std::array<Sized, 3> sources{Sized(4, 75), Sized(2, 256), Sized(9, 275)};
  Shared s(kBudget, {.readers = 2, .spill_ahead = 4});
  std::array<std::uint32_t, 3> regions{};
  for (std::size_t i = 0; i < 3; ++i) regions[i] = s.add(sources[i], 0, kPages);
  std::mt19937_64 random(5);
  std::map<storage::PageId, std::uint32_t> now, stored, expected;  // versions
  std::optional<CommitRequest> epoch;
  std::uint32_t version = 0;
  std::uint64_t failures = 0;
  for (int step = 0; step < 8000; ++step) {
    const std::size_t i = random() % 3;
    std::vector<std::uint64_t> pages(1 + random() % 10);
    for (std::uint64_t& page : pages) {
      const auto kind = random() % 2 == 0 ? PageKind::weights : PageKind::state;
      page = PageKey{kind, regions[i], static_cast<std::uint32_t>(random() % kPages)}.packed();
    }
    s.disk.scratch = step % 1000 < 20 && step > 20 ? std::filesystem::path("/nonexistent/perennial")
                                                   : std::filesystem::temp_directory_path();
    PinSet pin;
    const std::uint64_t choice = random() % 100;
    if (choice < 80) {
      const bool writes = choice >= 45;
      const auto use = writes ? PinUse::write : PinUse::read;
      const auto groups = s.cache.pin({.pages = pages, .use = use}, pin);
      if (!groups.ok()) {
        ++failures;
        continue;
      }
      ASSERT_GE(*groups, 1u);
      for (std::size_t p = 0; p < *groups; ++p) {
        PageKey page = PageKey::of(pages[p]);
        const PageKey own{page.kind, 0, page.page};
        const storage::PageId id = sources[i].id(own);
        ASSERT_EQ(s.content(page, sources[i].words(page.kind)), sources[i].expected(own, now[id]))
            << to_string(id) << ", step " << step;
        if (!writes) continue;
        now[id] = ++version;
        sources[i].fill(
            own, version,
            {reinterpret_cast<std::byte*>(s.cache.frames(page.kind, page.region)[page.page]),
             sources[i].words(page.kind) * std::size_t{4}});
      }
    } else if (choice < 88) {
      s.cache.prefetch(pages);
    } else if (!epoch) {
      epoch.emplace();
      s.cache.begin_epoch(*epoch);
      expected = now;
    } else {
      const bool success = random() % 3 > 0;
      if (success) {
        s.disk.take(*epoch);
        stored = expected;
      }
      s.cache.end_epoch(success);
      epoch.reset();
      for (const auto& [id, words] : s.disk.pages) {
        const Sized& source = id.pool == 4 ? sources[0] : id.pool == 2 ? sources[1] : sources[2];
        ASSERT_EQ(words, source.expected({id.kind, 0, id.row}, stored[id])) << to_string(id);
      }
    }
  }
  const PagerCounters c = s.cache.counters();
  EXPECT_LE(c.peak_bytes, kBudget);
  EXPECT_GT(c.unspilled, 100u);
  EXPECT_GT(c.read, 100u);
  EXPECT_GT(c.copied_on_write, 20u);
}

// Threads over sources of different sizes, each of whose groups needs nearly all of the budget.
TEST(PageCacheSharing, NobodyStarvesBesideAnotherSize) {
  const std::array<Sized, 2> sources{Sized(0, 100), Sized(1, 333)};
  constexpr std::uint32_t kPages = 40;
  const std::array<std::size_t, 2> group{9, 3};
  const std::uint64_t budget = std::max(9 * 400, 3 * 1332);
  Shared s(budget, {.readers = 2});
  std::array<std::uint32_t, 2> regions{};
  for (std::size_t i = 0; i < 2; ++i) regions[i] = s.add(sources[i], 0, kPages);
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      const std::size_t i = seed % 2;
      std::mt19937_64 random(seed);
      PinSet pin;
      for (int step = 0; step < 150; ++step) {
        std::set<std::uint64_t> chosen;
        while (chosen.size() < group[i]) {
          chosen.insert(
              PageKey{PageKind::weights, regions[i], static_cast<std::uint32_t>(random() % kPages)}
                  .packed());
        }
        const std::vector<std::uint64_t> pages(chosen.begin(), chosen.end());
        if (step % 5 == 0) s.cache.prefetch(pages);
        const auto pinned = s.cache.pin({.pages = pages, .group = group[i]}, pin);
        ASSERT_TRUE(pinned.ok()) << pinned.status().to_string();
        ASSERT_EQ(*pinned, 1u);
        for (const std::uint64_t packed : pages) {
          const PageKey page = PageKey::of(packed);
          ASSERT_EQ(s.content(page, sources[i].words(page.kind)),
                    sources[i].expected({page.kind, 0, page.page}, 0));
        }
        pin.release();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(s.cache.counters().peak_bytes, budget);
  EXPECT_GT(s.cache.counters().evicted, 500u);
}

}  // namespace
}  // namespace perennial
