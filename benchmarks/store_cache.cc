// SPDX-License-Identifier: Apache-2.0
// The pager's page cache: what a hit costs, how fast policies find victims, and how often a page is
// there on made traces.
#include <random>

#include "cached_pages.h"
#include "pool/cache_trace.h"

namespace perennial::bench {
namespace {

constexpr std::size_t kSmallPageBytes = kExpertBytes;  // small: what is measured is the bookkeeping
constexpr std::size_t kSlots = 128;                    // pages a token
constexpr std::size_t kBatch = 64;                     // tokens pinned at once
constexpr PolicyKind kPolicies[] = {PolicyKind::s3_fifo, PolicyKind::clock, PolicyKind::lru};

// Nanoseconds a page for pinning and releasing the pages in batches, each of which fits.
double pin_ns(CachedPages& cached, const std::vector<std::uint64_t>& pages) {
  PinSet pin;
  const double start = now();
  for (std::size_t at = 0; at + kSlots <= pages.size();) {
    const std::size_t count = std::min(pages.size() - at, kSlots * kBatch) / kSlots * kSlots;
    at += kSlots *
          must(cached.cache.pin(std::span(pages).subspan(at, count), kSlots, PinUse::read, pin));
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
  for (const PolicyKind policy : kPolicies) {
    const std::string name(policy_name(policy));
    {
      CachedPages cached(kSmallPageBytes, pages, pages, nullptr, {.policy = policy});
      std::vector<std::uint64_t> all(pages);
      for (std::size_t i = 0; i < pages; ++i) all[i] = cached_page(i);
      (void)pin_ns(cached, all);
      const auto ns = interleave(run.repetitions(9), {[&] { return pin_ns(cached, zipf); },
                                                      [&] { return pin_ns(cached, uniform); }});
      const auto row = [&](const char* trace, const std::vector<double>& values) {
        Row pinned = limit_row("pin a page that is there, " + std::string(trace) + ", " + name,
                               "ns", values, 100);
        if (policy != PageCacheOptions().policy) pinned.target.reset();
        run.rows.push_back(std::move(pinned));
      };
      row("Zipf 1.1", ns[0]);
      row("uniform", ns[1]);
    }
  }
  // Few enough pages that the trace needs more of them than half.
  const std::size_t few = pages / 4;
  const std::vector<std::uint64_t> some = trace_of(TraceKind::zipf, few, length / 4);
  // Misses are filled from the recipe, so the rest is the policy and the bookkeeping.
  for (const std::size_t percent : {10u, 50u}) {
    std::vector<std::unique_ptr<CachedPages>> caches;
    Sides sides;
    for (const PolicyKind policy : kPolicies) {
      caches.push_back(std::make_unique<CachedPages>(kSmallPageBytes, few, few * percent / 100,
                                                     nullptr, PageCacheOptions{.policy = policy}));
      (void)pin_ns(*caches.back(), some);
      sides.push_back([&cached = *caches.back(), &some] { return 1e-9 * pin_ns(cached, some); });
    }
    const auto seconds = interleave(run.repetitions(5), sides);
    for (std::size_t i = 0; i < std::size(kPolicies); ++i) {
      run.rows.push_back(rate_row("pin pages, Zipf 1.1, cache of " + std::to_string(percent) +
                                      "%, " + std::string(policy_name(kPolicies[i])) +
                                      "; beside lru",
                                  "million pages/s", 1e-6, seconds[i], seconds[2]));
    }
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
      const double lru = 100 * hit_rate(PolicyKind::lru, frames, trace);
      for (const PolicyKind policy : {PolicyKind::s3_fifo, PolicyKind::clock}) {
        const double ours = 100 * hit_rate(policy, frames, trace);
        run.rows.push_back({.name = "hits, " + std::string(trace_name(kind)) + ", cache of " +
                                    std::to_string(percent) + "%, " +
                                    std::string(policy_name(policy)) + "; beside lru",
                            .unit = "%",
                            .ours = summarize({ours}),
                            .baseline = summarize({lru}),
                            .ratio = lru > 0 ? ours / lru : 0});
      }
    }
  }
}

}  // namespace

void bench_cache(StoreRun& run) {
  lookup_rows(run);
  hit_rows(run);
}

}  // namespace perennial::bench
