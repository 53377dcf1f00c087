// SPDX-License-Identifier: Apache-2.0
// Traces, and caches of names only.
#include "cache_trace.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <numeric>
#include <random>
#include <unordered_map>

#include "pool/s3_fifo.h"

namespace perennial::bench {

namespace {

double unit(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

class Names : public PageUse {
 public:
  bool evictable(std::uint64_t) override { return true; }
  std::uint32_t frequency(std::uint64_t page) override { return frequencies[page]; }
  void set_frequency(std::uint64_t page, std::uint32_t value) override {
    frequencies[page] = value;
  }

  std::unordered_map<std::uint64_t, std::uint32_t> frequencies;
};

double share(std::uint64_t hits, const std::vector<std::uint64_t>& trace) {
  return trace.empty() ? 0 : static_cast<double>(hits) / static_cast<double>(trace.size());
}

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

double s3_fifo_hit_rate(std::uint32_t frames, const std::vector<std::uint64_t>& trace) {
  S3Fifo order;
  Names use;  // of the pages that are in a frame
  std::uint64_t hits = 0, now = 0;
  for (const std::uint64_t page : trace) {
    if (const auto found = use.frequencies.find(page); found != use.frequencies.end()) {
      ++hits;
      found->second = std::min(found->second + 1, kMaxFrequency);
      continue;
    }
    if (use.frequencies.size() == frames) use.frequencies.erase(order.victim(use, now)->page);
    use.frequencies[page] = 0;
    order.insert(0, page, ++now);
  }
  return share(hits, trace);
}

double lru_hit_rate(std::uint32_t frames, const std::vector<std::uint64_t>& trace) {
  std::list<std::uint64_t> used;  // the front leaves first
  std::unordered_map<std::uint64_t, std::list<std::uint64_t>::iterator> where;
  std::uint64_t hits = 0;
  for (const std::uint64_t page : trace) {
    if (const auto found = where.find(page); found != where.end()) {
      ++hits;
      used.splice(used.end(), used, found->second);
      continue;
    }
    if (where.size() == frames) {
      where.erase(used.front());
      used.pop_front();
    }
    where[page] = used.insert(used.end(), page);
  }
  return share(hits, trace);
}

}  // namespace perennial::bench
