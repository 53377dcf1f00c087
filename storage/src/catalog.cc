// SPDX-License-Identifier: Apache-2.0
// Retention over the commits of a store.
#include "catalog.h"

#include <algorithm>
#include <iterator>

namespace perennial::storage {
namespace {

// Keeps the newest commit of each of the newest `count` spans of time that have one.
void keep_newest_of_each(const Catalog& catalog, std::int64_t span_ms, std::uint32_t count,
                         std::set<std::uint64_t>& kept) {
  std::set<std::int64_t> seen;
  for (auto entry = catalog.rbegin(); entry != catalog.rend() && seen.size() <= count; ++entry) {
    const std::int64_t ms = entry->second.unix_ms;
    const std::int64_t span = ms / span_ms - (ms % span_ms < 0 ? 1 : 0);
    if (seen.contains(span)) continue;
    seen.insert(span);
    if (seen.size() <= count) kept.insert(entry->first);
  }
}

}  // namespace

std::uint64_t find_snapshot(const Catalog& catalog, const std::string& name) {
  const auto found =
      std::ranges::find_if(catalog, [&](const auto& item) { return item.second.snapshot == name; });
  return found == catalog.end() ? 0 : found->first;
}

std::vector<std::uint64_t> not_retained(const Catalog& catalog, const Retention& retention,
                                        const std::set<std::uint64_t>& pinned) {
  if (retention.keep_last == 0 || catalog.empty()) return {};
  std::set<std::uint64_t> kept = pinned;
  auto entry = catalog.rbegin();
  for (std::uint32_t n = 0; n < retention.keep_last && entry != catalog.rend(); ++n, ++entry) {
    kept.insert(entry->first);
  }
  constexpr std::int64_t kHour = 3'600'000;
  keep_newest_of_each(catalog, kHour, retention.hourly, kept);
  keep_newest_of_each(catalog, 24 * kHour, retention.daily, kept);
  std::vector<std::uint64_t> dropped;
  for (const auto& [commit, item] : catalog) {
    if (item.snapshot.empty() && !kept.contains(commit)) dropped.push_back(commit);
  }
  return dropped;
}

}  // namespace perennial::storage
