// SPDX-License-Identifier: Apache-2.0
// Retention rules over catalogs with known times.
#include "catalog.h"

#include "store_testing.h"

namespace perennial::storage::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::int64_t kMinute = 60'000;

// A commit every 20 minutes for three days.
Catalog three_days() {
  Catalog catalog;
  for (int i = 0; i < 3 * 72; ++i) {
    catalog[static_cast<std::uint64_t>(i) + 1] = {1'699'920'000'000 + i * 20 * kMinute, ""};
  }
  return catalog;
}

std::vector<std::uint64_t> kept(const Catalog& catalog, const Retention& retention,
                                const std::set<std::uint64_t>& pinned = {}) {
  std::vector<std::uint64_t> kept;
  const auto dropped = not_retained(catalog, retention, pinned);
  for (const auto& [commit, entry] : catalog) {
    if (!std::ranges::binary_search(dropped, commit)) kept.push_back(commit);
  }
  return kept;
}

TEST(Retention, KeepsTheLast) {
  EXPECT_THAT(kept(three_days(), {.keep_last = 3}), ElementsAre(214, 215, 216));
  EXPECT_THAT(kept(three_days(), {.keep_last = 1}), ElementsAre(216));
  EXPECT_EQ(kept(three_days(), Retention::all()).size(), 216u);
  EXPECT_EQ(kept(three_days(), {.keep_last = 1000}).size(), 216u);
  EXPECT_THAT(not_retained({}, {}, {}), IsEmpty());
}

TEST(Retention, KeepsTheNewestOfHoursAndDays) {
  // Three commits an hour: the newest of the last hours are 216, 213, 210.
  EXPECT_THAT(kept(three_days(), {.keep_last = 1, .hourly = 3}), ElementsAre(210, 213, 216));
  EXPECT_THAT(kept(three_days(), {.keep_last = 1, .daily = 2}), ElementsAre(144, 216));
  EXPECT_THAT(kept(three_days(), {.keep_last = 2, .hourly = 2, .daily = 9}),
              ElementsAre(72, 144, 213, 215, 216));
}

TEST(Retention, KeepsSnapshotsAndWhatIsPinned) {
  Catalog catalog = three_days();
  catalog[17].snapshot = "named";
  EXPECT_THAT(kept(catalog, {.keep_last = 1}, {40}), ElementsAre(17, 40, 216));
}

}  // namespace
}  // namespace perennial::storage::testing
