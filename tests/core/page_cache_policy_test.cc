// SPDX-License-Identifier: Apache-2.0
// Eviction policies: what they keep, what they must not evict, and hit rates on made traces.
#include <gtest/gtest.h>

#include <set>

#include "pool/cache_trace.h"

namespace perennial {
namespace {

class Held : public FrameUse {
 public:
  bool evictable(std::uint32_t frame) override { return !held.contains(frame); }
  std::uint32_t frequency(std::uint32_t frame) override { return frequencies[frame]; }
  void set_frequency(std::uint32_t frame, std::uint32_t value) override {
    frequencies[frame] = value;
  }
  std::uint64_t last_use(std::uint32_t frame) override { return uses[frame]; }
  std::set<std::uint32_t> held;
  std::uint32_t frequencies[64] = {};
  std::uint64_t uses[64] = {};
};

class Policies : public ::testing::TestWithParam<PolicyKind> {};

TEST_P(Policies, NeverGiveHeldFramesAndGiveEveryOther) {
  const auto policy = make_policy(GetParam());
  Held use;
  EXPECT_EQ(policy->victim(use), kNoFrame);
  for (std::uint32_t i = 0; i < 40; ++i) {
    policy->insert(i, 1000 + i);
    use.frequencies[i] = i % (kMaxFrequency + 1);
    if (i % 4 == 1) use.held.insert(i);
  }
  policy->remove(8);
  std::set<std::uint32_t> victims;
  for (std::uint32_t frame = policy->victim(use); frame != kNoFrame; frame = policy->victim(use)) {
    EXPECT_TRUE(victims.insert(frame).second) << frame << " twice";
    EXPECT_FALSE(use.held.contains(frame));
  }
  EXPECT_EQ(victims.size(), 29u);
  EXPECT_EQ(policy->next(100).size(), 10u);
  use.held.clear();
  policy->keep(8, 1008);
  for (int i = 0; i < 11; ++i) EXPECT_NE(policy->victim(use), kNoFrame);
  EXPECT_EQ(policy->victim(use), kNoFrame);
}

INSTANTIATE_TEST_SUITE_P(All, Policies,
                         ::testing::Values(PolicyKind::s3_fifo, PolicyKind::clock, PolicyKind::lru),
                         [](const auto& info) { return std::string(policy_name(info.param)); });

TEST(Lru, GivesTheLeastRecentlyUsed) {
  const auto policy = make_policy(PolicyKind::lru);
  Held use;
  for (std::uint32_t i = 0; i < 4; ++i) {
    policy->insert(i, i);
    use.uses[i] = 10 + (i + 2) % 4;
  }
  for (const std::uint32_t frame : {2u, 3u, 0u, 1u}) EXPECT_EQ(policy->victim(use), frame);
}

TEST(Traces, AreFunctionsOfTheirArguments) {
  for (const TraceKind kind :
       {TraceKind::scan, TraceKind::zipf, TraceKind::zipf_scan, TraceKind::shifting}) {
    const auto trace = make_trace(kind, 500, 2000, 3);
    EXPECT_EQ(trace, make_trace(kind, 500, 2000, 3));
    for (const std::uint64_t page : trace) ASSERT_LT(page, 500u);
  }
}

TEST(Traces, S3FifoResistsScansAndKeepsUpWithShifts) {
  const auto rates = [](TraceKind kind, PolicyKind policy) {
    return hit_rate(policy, 100, make_trace(kind, 1000, 100'000, 1));
  };
  const double mixed = rates(TraceKind::zipf_scan, PolicyKind::s3_fifo);
  EXPECT_GT(mixed, rates(TraceKind::zipf_scan, PolicyKind::lru) + 0.02);
  EXPECT_GT(mixed, rates(TraceKind::zipf_scan, PolicyKind::clock) + 0.02);
  EXPECT_GT(rates(TraceKind::zipf, PolicyKind::s3_fifo), rates(TraceKind::zipf, PolicyKind::lru));
  EXPECT_GT(rates(TraceKind::shifting, PolicyKind::s3_fifo),
            rates(TraceKind::shifting, PolicyKind::lru) - 0.02);
}

}  // namespace
}  // namespace perennial
