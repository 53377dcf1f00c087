// SPDX-License-Identifier: Apache-2.0
// Commits beside a sequential write and fsync of the same bytes (ceiling: past the page cache).
#include "bench_store.h"

namespace perennial::bench {
namespace {
namespace fs = std::filesystem;

void commits_of(StoreRun& run, std::size_t dirty, std::size_t repetitions,
                std::optional<double> target) {
  const PageSource source(kPageBytes, dirty);
  const fs::path store_folder = run.folder / "commits";
  const fs::path raw = run.folder / "raw";
  auto store = open_store(store_folder);
  std::vector<double> cpu;
  const auto write_plain = [&](Writing writing) {
    const double time = write_file(raw, source.all(), writing);
    fs::remove(raw);
    return time;
  };
  const auto commit = [&] {
    const storage::CommitRequest request = source.first(dirty);
    const double cpu_before = cpu_seconds();
    const double start = now();
    must(store->commit(request));
    const double time = now() - start;
    cpu.push_back(cpu_seconds() - cpu_before);
    // Whoever comes next finds memory that was in use just now, as after the removal of a plain
    // file: a virtual machine may have to ask its host for memory that was free for long, which
    // makes a write through the page cache four times as slow.
    prepare_cache(store_folder, Caching::cold);
    return time;
  };
  const auto seconds = interleave(run.repetitions(repetitions),
                                  {commit, [&] { return write_plain(Writing::buffered); },
                                   [&] { return write_plain(Writing::direct); }});
  const std::string name = "commit " + std::to_string(dirty) + " pages of 64 KB";
  const double gigabytes = 1e-9 * static_cast<double>(dirty * kPageBytes);
  Row latency = time_row(name + ", latency", seconds[0], seconds[1]);
  Row rate = rate_row(name + ", throughput", "GB/s", gigabytes, seconds[0], seconds[1], target);
  latency.ceiling = 1e3 * summarize(seconds[2]).median;
  rate.ceiling = gigabytes / summarize(seconds[2]).median;
  run.rows.push_back(std::move(latency));
  run.rows.push_back(std::move(rate));
  run.rows.push_back(time_row(name + ", its CPU time beside its latency", cpu, seconds[0]));
  store.reset();
  fs::remove_all(store_folder);
}

}  // namespace

void bench_commits(StoreRun& run) {
  commits_of(run, 1, 41, {});
  commits_of(run, 16, 41, {});
  commits_of(run, run.size(256, 32), 15, 0.55);
  if (!run.smoke) commits_of(run, 4096, 7, 0.8);
}

}  // namespace perennial::bench
