// SPDX-License-Identifier: Apache-2.0
// The order of eviction: what it keeps, and what it must not evict.
#include "pool/s3_fifo.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace perennial {
namespace {

class Held : public PageUse {
 public:
  bool evictable(std::uint64_t page) override { return !held.contains(page); }
  std::uint32_t frequency(std::uint64_t page) override { return frequencies[page]; }
  void set_frequency(std::uint64_t page, std::uint32_t value) override {
    frequencies[page] = value;
  }
  std::set<std::uint64_t> held;
  std::map<std::uint64_t, std::uint32_t> frequencies;
};

TEST(S3Fifo, NeverGivesHeldPagesAndGivesEveryOther) {
  S3Fifo order;
  Held use;
  EXPECT_FALSE(order.victim(use, 0));
  for (std::uint32_t i = 0; i < 40; ++i) {
    order.insert(i, 1000 + i, i);
    use.frequencies[1000 + i] = i % (kMaxFrequency + 1);
    if (i % 4 == 1) use.held.insert(1000 + i);
  }
  order.remove_if([](std::uint64_t page) { return page == 1008; });
  std::set<std::uint64_t> victims;
  while (const auto victim = order.victim(use, 40)) {
    EXPECT_TRUE(victims.insert(victim->page).second) << victim->page << " twice";
    EXPECT_EQ(victim->frame + 1000, victim->page);
    EXPECT_FALSE(use.held.contains(victim->page));
  }
  EXPECT_EQ(victims.size(), 29u);
  EXPECT_EQ(order.next(100).size(), 10u);
  use.held.clear();
  order.keep({.frame = 8, .page = 1008}, 41);
  for (int i = 0; i < 11; ++i) EXPECT_TRUE(order.victim(use, 42));
  EXPECT_FALSE(order.victim(use, 42));
  EXPECT_FALSE(order.oldest());
}

TEST(S3Fifo, TellsSinceWhenTheFirstHasWaited) {
  S3Fifo order;
  Held use;
  order.insert(0, 10, 7);
  order.insert(1, 11, 9);
  EXPECT_EQ(order.oldest(), 7u);
  use.held.insert(10);
  EXPECT_EQ(order.victim(use, 20)->page, 11u);
  EXPECT_EQ(order.oldest(), 20u) << "asked, and put at the end";
}

TEST(S3Fifo, FollowsPagesToTheirNewNames) {
  S3Fifo order;
  Held use;
  order.insert(0, 10, 0);
  order.insert(1, 11, 1);
  EXPECT_EQ(order.victim(use, 2)->page, 10u);  // remembered
  order.rename([](std::uint64_t page) { return page + 100; });
  order.insert(0, 110, 3);  // back: straight to the main queue
  order.insert(2, 112, 4);
  EXPECT_EQ(order.victim(use, 5)->page, 111u);
  EXPECT_EQ(order.victim(use, 5)->page, 112u);
  EXPECT_EQ(order.victim(use, 5)->page, 110u);
}

// Ten pages that are used twice a round, beside a scan of pages that are used once: the scan passes
// through the small queue, and never pushes out what is used.
TEST(S3Fifo, AScanLeavesWhatIsUsed) {
  constexpr std::uint64_t kHot = 10, kFrames = 40;
  S3Fifo order;
  Held use;
  std::map<std::uint64_t, std::uint32_t> where;
  std::uint64_t now = 0, scanned = 1000, misses = 0;
  const auto access = [&](std::uint64_t page) {
    if (where.contains(page)) {
      use.frequencies[page] = std::min(use.frequencies[page] + 1, kMaxFrequency);
      return;
    }
    ++misses;
    auto frame = static_cast<std::uint32_t>(where.size());
    if (frame == kFrames) {
      const auto victim = order.victim(use, now);
      ASSERT_TRUE(victim);
      frame = victim->frame;
      where.erase(victim->page);
    }
    where[page] = frame;
    use.frequencies[page] = 0;
    order.insert(frame, page, ++now);
  };
  for (int round = 0; round < 200; ++round) {
    for (std::uint64_t i = 0; i < kHot; ++i) {
      access(i);
      access(i);
      access(scanned++);
    }
  }
  EXPECT_EQ(misses, kHot + (scanned - 1000));
}

}  // namespace
}  // namespace perennial
