// SPDX-License-Identifier: Apache-2.0
// Traces, and a cache of names only.
#include "pool/cache_trace.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <unordered_map>

namespace perennial {

namespace {

double unit(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

class Names : public FrameUse {
 public:
  explicit Names(std::uint32_t frames) : frequencies(frames), uses(frames) {}
  bool evictable(std::uint32_t) override { return true; }
  std::uint32_t frequency(std::uint32_t frame) override { return frequencies[frame]; }
  void set_frequency(std::uint32_t frame, std::uint32_t value) override {
    frequencies[frame] = value;
  }
  std::uint64_t last_use(std::uint32_t frame) override { return uses[frame]; }

  std::vector<std::uint32_t> frequencies;
  std::vector<std::uint64_t> uses;
};

}  // namespace

std::string_view trace_name(TraceKind kind) {
  switch (kind) {
    case TraceKind::scan:
      return "scan";
    case TraceKind::zipf:
      return "zipf";
    case TraceKind::zipf_scan:
      return "zipf_scan";
    default:
      return "shifting";
  }
}

std::vector<std::uint64_t> make_trace(TraceKind kind, std::uint64_t pages, std::size_t length,
                                      std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> cumulative(pages);
  double sum = 0;
  for (std::uint64_t i = 0; i < pages; ++i) {
    cumulative[i] = sum += 1 / std::pow(static_cast<double>(i + 1), 1.1);
  }
  // Popular pages are not neighbours.
  std::vector<std::uint64_t> names(pages);
  std::iota(names.begin(), names.end(), std::uint64_t{0});
  for (std::uint64_t i = pages; i > 1; --i) std::swap(names[i - 1], names[random() % i]);
  const auto popular = [&] {
    const auto found = std::upper_bound(cumulative.begin(), cumulative.end(), unit(random) * sum);
    const auto rank = static_cast<std::uint64_t>(found - cumulative.begin());
    return names[std::min(rank, pages - 1)];
  };
  const std::uint64_t hot = std::max<std::uint64_t>(1, pages / 20);
  std::uint64_t position = 0;
  std::vector<std::uint64_t> trace(length);
  for (std::size_t i = 0; i < length; ++i) {
    switch (kind) {
      case TraceKind::scan:
        trace[i] = position++ % pages;
        break;
      case TraceKind::zipf:
        trace[i] = popular();
        break;
      case TraceKind::zipf_scan:
        trace[i] = i % 4 == 3 ? position++ % pages : popular();
        break;
      case TraceKind::shifting: {
        const std::uint64_t first = i * 10 / length * hot;
        trace[i] = unit(random) < 0.9 ? names[(first + random() % hot) % pages] : random() % pages;
        break;
      }
    }
  }
  return trace;
}

double hit_rate(PolicyKind kind, std::uint32_t frames, const std::vector<std::uint64_t>& trace) {
  const std::unique_ptr<EvictionPolicy> policy = make_policy(kind);
  Names use(frames);
  std::unordered_map<std::uint64_t, std::uint32_t> where;
  std::vector<std::uint64_t> held(frames);
  std::uint64_t hits = 0, now = 0;
  for (const std::uint64_t page : trace) {
    ++now;
    if (const auto found = where.find(page); found != where.end()) {
      ++hits;
      const std::uint32_t frame = found->second;
      use.frequencies[frame] = std::min(use.frequencies[frame] + 1, kMaxFrequency);
      use.uses[frame] = now;
      continue;
    }
    auto frame = static_cast<std::uint32_t>(where.size());
    if (frame == frames) {
      frame = policy->victim(use);
      where.erase(held[frame]);
    }
    where[page] = frame;
    held[frame] = page;
    use.frequencies[frame] = 0;
    use.uses[frame] = now;
    policy->insert(frame, page);
  }
  return trace.empty() ? 0 : static_cast<double>(hits) / static_cast<double>(trace.size());
}

}  // namespace perennial
