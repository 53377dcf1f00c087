// SPDX-License-Identifier: Apache-2.0
// Commits beside a sequential write and fsync of the same bytes (ceiling: past the page cache), and
// what commits write in all.
#include <algorithm>
#include <random>

#include "bench_store.h"

namespace perennial::bench {
namespace {
namespace fs = std::filesystem;

constexpr std::size_t kPageBytes = std::size_t{64} << 10;

// Bytes that a folder's files take, each file once.
double bytes_of_store(const storage::PageStore& store) {
  return static_cast<double>(must(store.size_bytes()));
}

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

struct Written {
  double device = 0;  // bytes the kernel sent towards the device for this process
  double files = 0;   // bytes the store grew by
  double dirty = 0;   // payload of the pages that were committed
  std::vector<double> seconds;
};

// `commits` commits of `dirty` of the store's `pages` pages, chosen anew each time.
Written write_commits(storage::PageStore& store, const PageSource& source, std::size_t pages,
                      std::size_t commits, std::size_t dirty) {
  std::mt19937 random(1);
  Written written;
  const double files_before = bytes_of_store(store);
  const std::uint64_t device_before = bytes_written();
  std::vector<std::size_t> all(pages);
  for (std::size_t i = 0; i < pages; ++i) all[i] = i;
  for (std::size_t commit = 0; commit < commits; ++commit) {
    std::vector<std::size_t> chosen;
    std::ranges::sample(all, std::back_inserter(chosen), static_cast<std::ptrdiff_t>(dirty),
                        random);
    storage::CommitRequest request;
    for (const std::size_t page : chosen) {
      request.pages.push_back(source.write(page, page + commit + 1));
    }
    const double start = now();
    must(store.commit(request));
    written.seconds.push_back(now() - start);
  }
  written.device = static_cast<double>(bytes_written() - device_before);
  written.files = bytes_of_store(store) - files_before;
  written.dirty = static_cast<double>(commits * dirty * kPageBytes);
  return written;
}

void written_rows(StoreRun& run, const std::string& name, const Written& written, double limit) {
  const auto row = [&](const char* what, double bytes) {
    run.rows.push_back(limit_row(name + what, "bytes a dirty byte", bytes / written.dirty, limit));
  };
  row(", sent to the device", written.device);
  row(", growth of the files", written.files);
}

}  // namespace

void bench_commits(StoreRun& run) {
  commits_of(run, 1, 41, {});
  commits_of(run, 16, 41, {});
  commits_of(run, run.size(256, 32), 15, 0.55);
  if (!run.smoke) commits_of(run, 4096, 7, 0.8);
}

void bench_amplification(StoreRun& run) {
  const fs::path folder = run.folder / "written";
  const PageSource source(kPageBytes, run.size(2048, 64));
  {
    const std::size_t pages = run.size(16384, 64);  // 1 GB
    auto store = open_store(folder);
    must(store->commit(source.first(pages)));
    written_rows(run, "50 commits of 2% of 1 GB",
                 write_commits(*store, source, pages, run.size(50, 3), run.size(328, 2)), 1.03);
  }
  fs::remove_all(folder);
  {
    const std::size_t pages = run.size(2048, 64);
    auto store = open_store(folder);
    must(store->commit(source.first(pages)));
    Written written = write_commits(*store, source, pages, run.size(500, 3), 4);
    written_rows(run, "500 commits of 4 pages", written, 1.3);
    std::ranges::sort(written.seconds);
    const std::size_t count = written.seconds.size();
    run.rows.push_back(limit_row("500 commits of 4 pages, p99 beside 2.5 medians", "ms",
                                 1e3 * written.seconds[count * 99 / 100],
                                 1e3 * written.seconds[count / 2], 2.5));
  }
  fs::remove_all(folder);
}

}  // namespace perennial::bench
