// SPDX-License-Identifier: Apache-2.0
// Hit rates on made traces, without any page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace perennial::bench {

// scan: every page in turn, round and round. zipf: popularity falls as 1 / rank^1.1. zipf_scan: the
// same with a scan of all pages mixed in, one access in four. shifting: nine accesses in ten go to
// a hot twentieth of the pages that moves on after every tenth of the trace.
enum class TraceKind : std::uint8_t { scan, zipf, zipf_scan, shifting };
std::string_view trace_name(TraceKind kind);

// `length` accesses to pages [0, pages); a function of its arguments.
std::vector<std::uint64_t> make_trace(TraceKind kind, std::uint64_t pages, std::size_t length,
                                      std::uint64_t seed);
// The share of accesses that found their page in one of `frames` frames: with the page cache's
// order of eviction, and when the least recently used page leaves.
double s3_fifo_hit_rate(std::uint32_t frames, const std::vector<std::uint64_t>& trace);
double lru_hit_rate(std::uint32_t frames, const std::vector<std::uint64_t>& trace);

}  // namespace perennial::bench
