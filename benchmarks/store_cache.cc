// SPDX-License-Identifier: Apache-2.0
// The pager's page cache: what a hit costs, how fast victims are found, and how often a page is
// there on made traces, beside a cache from which the least recently used page leaves.
#include <random>

#include "cache_trace.h"
#include "cached_pages.h"

namespace perennial::bench {
namespace {

constexpr std::size_t kSmallPageBytes = kExpertBytes;  // small: what is measured is the bookkeeping
constexpr std::size_t kSlots = 128;                    // pages a token
constexpr std::size_t kBatch = 64;                     // tokens pinned at once

// Nanoseconds a page for pinning and releasing the pages in batches, each of which fits.
double pin_ns(CachedPages& cached, const std::vector<std::uint64_t>& pages) {
  PinSet pin;
  const double start = now();
  for (std::size_t at = 0; at + kSlots <= pages.size();) {
    const std::size_t count = std::min(pages.size() - at, kSlots * kBatch) / kSlots * kSlots;
    at += kSlots * must(cached.cache.pin(
                       {.pages = std::span(pages).subspan(at, count), .group = kSlots}, pin));
    pin.release();
  }
  return 1e9 * (now() - start) / static_cast<double>(pages.size());
}

std::vector<std::uint64_t> trace_of(TraceKind kind, std::size_t pages, std::size_t length) {
  std::vector<std::uint64_t> trace = make_trace(kind, pages, length, 1);
  for (std::uint64_t& page : trace) page = cached_page(page);
  return trace;
}

void lookup_rows(StoreRun& run) {
  const std::size_t pages = run.size(65536, 8192);  // a tenth of a quarter still holds a group
  const std::size_t length = run.size(std::size_t{1} << 20, std::size_t{1} << 13);
  const std::vector<std::uint64_t> zipf = trace_of(TraceKind::zipf, pages, length);
  std::vector<std::uint64_t> uniform(length);
  std::mt19937 random(1);
  for (std::uint64_t& page : uniform) page = cached_page(random() % pages);
  {
    CachedPages cached(kSmallPageBytes, pages, pages, nullptr);
    std::vector<std::uint64_t> all(pages);
    for (std::size_t i = 0; i < pages; ++i) all[i] = cached_page(i);
    (void)pin_ns(cached, all);
    const auto ns = interleave(run.repetitions(9), {[&] { return pin_ns(cached, zipf); },
                                                    [&] { return pin_ns(cached, uniform); }});
    run.rows.push_back(limit_row("pin a page that is there, Zipf 1.1, s3_fifo", "ns", ns[0], 100));
    run.rows.push_back(limit_row("pin a page that is there, uniform, s3_fifo", "ns", ns[1], 100));
  }
  // Few enough pages that the trace needs more of them than half.
  const std::size_t few = pages / 4;
  const std::vector<std::uint64_t> some = trace_of(TraceKind::zipf, few, length / 4);
  // Misses are filled from the recipe, so the rest is the order of eviction and the bookkeeping.
  // Beside a cache that holds all.
  CachedPages whole(kSmallPageBytes, few, few, nullptr);
  for (const std::size_t percent : {10u, 50u}) {
    CachedPages part(kSmallPageBytes, few, few * percent / 100, nullptr);
    const auto ns = interleave(run.repetitions(5), {[&] { return pin_ns(part, some); },
                                                    [&] { return pin_ns(whole, some); }});
    run.rows.push_back(less_row(
        "pin pages, Zipf 1.1, cache of " + std::to_string(percent) + "%, s3_fifo; beside 100%",
        "ns", ns[0], ns[1]));
  }
}

void hit_rows(StoreRun& run) {
  const std::size_t pages = run.size(20000, 1000);
  const std::size_t length = run.size(1'000'000, 10'000);
  for (const TraceKind kind :
       {TraceKind::scan, TraceKind::zipf, TraceKind::zipf_scan, TraceKind::shifting}) {
    const std::vector<std::uint64_t> trace = make_trace(kind, pages, length, 1);
    for (const std::size_t percent : {10u, 50u}) {
      const auto frames = static_cast<std::uint32_t>(pages * percent / 100);
      const double ours = 100 * s3_fifo_hit_rate(frames, trace);
      const double lru = 100 * lru_hit_rate(frames, trace);
      run.rows.push_back({.name = "hits, " + std::string(trace_name(kind)) + ", cache of " +
                                  std::to_string(percent) + "%, s3_fifo; beside lru",
                          .unit = "%",
                          .ours = summarize({ours}),
                          .baseline = summarize({lru}),
                          .ratio = lru > 0 ? ours / lru : 0});
    }
  }
}

}  // namespace

void bench_cache(StoreRun& run) {
  lookup_rows(run);
  hit_rows(run);
}

}  // namespace perennial::bench
