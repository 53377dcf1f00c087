// SPDX-License-Identifier: Apache-2.0
// Bytes that commits write beside the bytes that changed, what a store grows to, and how steady
// commits are: keeping everything, and with the space of dropped commits given back.
#include <algorithm>
#include <random>

#include "bench_store.h"

namespace perennial::bench {
namespace {
namespace fs = std::filesystem;
using storage::Retention;

// Gives space back while it commits.
std::unique_ptr<storage::PageStore> open_reclaiming(const fs::path& folder) {
  return open_store(folder, {.mode = storage::OpenMode::either, .reclaim_in_background = true});
}

double bytes_of_store(const storage::PageStore& store) {
  return static_cast<double>(must(store.size_bytes()));
}

struct Written {
  double device = 0;  // bytes the kernel sent towards the device for this process
  double files = 0;   // bytes the store grew by
  double dirty = 0;   // payload of the pages that were committed
  std::vector<double> seconds;
};

// `commits` commits of `dirty` of the store's `pages` pages, chosen anew each time. What runs in
// the background counts until `finish` has returned.
Written write_commits(
    storage::PageStore& store, const PageSource& source, std::size_t pages, std::size_t commits,
    std::size_t dirty, const std::function<void()>& finish = [] {}) {
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
  finish();
  written.device = static_cast<double>(bytes_written() - device_before);
  written.files = bytes_of_store(store) - files_before;
  written.dirty = static_cast<double>(commits * dirty * kPageBytes);
  return written;
}

void device_row(StoreRun& run, const std::string& name, const Written& written, double limit) {
  run.rows.push_back(limit_row(name + ", sent to the device", "bytes a dirty byte",
                               {written.device / written.dirty}, limit));
}

// With everything kept, files grow by what is written.
void written_rows(StoreRun& run, const std::string& name, const Written& written, double limit) {
  device_row(run, name, written, limit);
  run.rows.push_back(limit_row(name + ", growth of the files", "bytes a dirty byte",
                               {written.files / written.dirty}, limit));
}

// One state is kept: space comes back while training goes on, and at the end thoroughly.
void collected_rows(StoreRun& run, const fs::path& folder) {
  const std::size_t pages = run.size(16384, 64);  // 1 GB
  const PageSource source(kPageBytes, run.size(2048, 64));
  auto store = open_reclaiming(folder);
  storage::CommitRequest first = source.first(pages);
  first.retention = Retention{.keep_last = 1};
  must(store->commit(first));
  double before = 0;
  const Written written =
      write_commits(*store, source, pages, run.size(50, 3), run.size(328, 2), [&] {
        before = bytes_of_store(*store);
        (void)must(store->reclaim({.target_space = 1.2}));
      });
  const std::string name = "50 commits of 2% of 1 GB, one state kept";
  const double live = static_cast<double>(pages * kPageBytes);
  device_row(run, name, written, 1.7);
  run.rows.push_back(limit_row(name + ", the store after reclaiming to 1.2", "bytes a live byte",
                               {bytes_of_store(*store) / live}, 1.2));
  run.rows.push_back(
      less_row(name + ", the store before that", "bytes a live byte", {before / live}, {1.0}));
  store.reset();
  fs::remove_all(folder);
}

void folded_rows(StoreRun& run, const fs::path& folder) {
  const std::size_t pages = run.size(2048, 64);
  const PageSource source(kPageBytes, pages);
  std::vector<double> device, median, slow;
  for (std::size_t repetition = 0; repetition < run.repetitions(3); ++repetition) {
    auto store = open_reclaiming(folder);
    must(store->commit(source.first(pages)));
    const Written written = write_commits(*store, source, pages, run.size(500, 3), 4);
    device.push_back(written.device / written.dirty);
    median.push_back(1e3 * quantile(written.seconds, 0.5));
    slow.push_back(1e3 * quantile(written.seconds, 0.99));
    store.reset();
    fs::remove_all(folder);
  }
  const std::string name = "500 commits of 4 pages, small files folded";
  run.rows.push_back(limit_row(name + ", sent to the device", "bytes a dirty byte", device, 2.2));
  run.rows.push_back(limit_row(name + ", p99 beside 2.5 medians", "ms", slow, median, 2.5));
}

// Most of a large file is dead: what is left of it moves.
void throughput_row(StoreRun& run, const fs::path& folder) {
  const std::size_t pages = run.size(8192, 64);  // 512 MB, 30% of them stay
  const std::size_t dead = pages * 7 / 10;
  const PageSource source(kPageBytes, run.size(2048, 64));
  const fs::path raw = run.folder / "raw";
  const PageSource rest(kPageBytes, pages - dead);
  const auto reclaim = [&] {
    auto store = open_store(folder);
    storage::CommitRequest first = source.first(pages);
    first.retention = Retention{.keep_last = 1};
    must(store->commit(first));
    storage::CommitRequest second;
    for (std::size_t i = 0; i < dead; ++i) {
      second.pages.push_back(source.write(i * 10 / 7, i + 1));
    }
    must(store->commit(second));
    const double start = now();
    const storage::ReclaimReport report = must(store->reclaim({}));
    const double seconds = now() - start;
    if (report.bytes_rewritten < (pages - dead) * kPageBytes) fail("reclaim had nothing to do");
    store.reset();
    fs::remove_all(folder);
    return seconds;
  };
  const auto plain = [&] {
    const double seconds = write_file(raw, rest.all(), Writing::buffered);
    fs::remove(raw);
    return seconds;
  };
  const auto seconds = interleave(run.repetitions(5), {reclaim, plain});
  run.rows.push_back(rate_row("reclaim a file of 512 MB, 70% dead; beside write and fsync", "GB/s",
                              1e-9 * static_cast<double>(rest.all().size()), seconds[0],
                              seconds[1]));
}

}  // namespace

void bench_amplification(StoreRun& run) {
  const fs::path folder = run.folder / "written";
  const PageSource source(kPageBytes, run.size(2048, 64));
  {
    const std::size_t pages = run.size(16384, 64);  // 1 GB
    auto store = open_store(folder);
    must(store->commit(source.first(pages)));
    written_rows(run, "50 commits of 2% of 1 GB, all kept",
                 write_commits(*store, source, pages, run.size(50, 3), run.size(328, 2)), 1.03);
  }
  fs::remove_all(folder);
  {
    const std::size_t pages = run.size(2048, 64);
    auto store = open_store(folder);
    must(store->commit(source.first(pages)));
    written_rows(run, "500 commits of 4 pages, all kept",
                 write_commits(*store, source, pages, run.size(500, 3), 4), 1.3);
  }
  fs::remove_all(folder);
}

void bench_reclaim(StoreRun& run) {
  const fs::path folder = run.folder / "reclaimed";
  collected_rows(run, folder);
  folded_rows(run, folder);
  throughput_row(run, folder);
}

}  // namespace perennial::bench
