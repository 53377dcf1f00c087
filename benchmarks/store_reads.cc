// SPDX-License-Identifier: Apache-2.0
// Reads of whole pages in random order through the store, by several threads, beside pread of a
// plain file. The store checks header and digest; pread checks nothing.
//
//   direct  RocksdbStoreOptions::direct_reads beside O_DIRECT
//   cold    through the page cache, with nothing of the files in it
//   warm    the same, with everything in it
#include <algorithm>
#include <numeric>
#include <random>

#include "bench_store.h"

namespace perennial::bench {
namespace {
namespace fs = std::filesystem;

constexpr std::size_t kJudgedBytes = std::size_t{64} << 10;

// One committed store of pages, and a plain file as large.
struct Pool {
  fs::path store;
  fs::path raw;
  std::size_t page_bytes = 0;
  std::vector<std::uint32_t> order;  // of the reads
};

// A way to read page `index` of the pool into `payload`.
using Read = std::function<void(std::size_t index, std::span<std::byte> payload)>;

double seconds_of(const Pool& pool, std::size_t threads, const Read& read) {
  std::vector<AlignedBytes> buffers;
  for (std::size_t i = 0; i < threads; ++i) buffers.push_back(aligned_bytes(pool.page_bytes));
  return run_threads(threads, pool.order.size(), [&](std::size_t thread, std::size_t i) {
    read(pool.order[i], {buffers[thread].get(), pool.page_bytes});
  });
}

Pool make_pool(const StoreRun& run, std::size_t page_bytes, std::size_t pages, std::size_t reads) {
  Pool pool;
  pool.store = run.folder / "reads";
  pool.raw = run.folder / "raw";
  pool.page_bytes = page_bytes;
  const PageSource source(page_bytes, pages);
  must(open_store(pool.store)->commit(source.first(pages)));
  write_file(pool.raw, source.all(), Writing::buffered);
  pool.order.resize(pages);
  std::iota(pool.order.begin(), pool.order.end(), 0u);
  std::ranges::shuffle(pool.order, std::mt19937(1));
  pool.order.resize(reads);
  return pool;
}

void read_rows(StoreRun& run, const Pool& pool, Caching caching,
               const std::vector<std::size_t>& threads) {
  const auto store = open_store(pool.store, {.mode = storage::OpenMode::existing,
                                             .direct_reads = caching == Caching::direct});
  const ReadFile raw(pool.raw, caching);
  const Read ours = [&](std::size_t index, std::span<std::byte> payload) {
    must(store->read_page(page_id(index), payload));
  };
  const Read theirs = [&](std::size_t index, std::span<std::byte> payload) {
    raw.read(index * pool.page_bytes, payload, payload.size());
  };
  const auto side = [&](std::size_t count, const fs::path& files, const Read& read) {
    return [&pool, caching, count, files, read] {
      if (caching == Caching::cold) prepare_cache(files, caching);
      return seconds_of(pool, count, read);
    };
  };
  prepare_cache(pool.raw, caching);
  prepare_cache(pool.store, caching);
  for (const std::size_t count : threads) {
    const auto seconds = interleave(run.repetitions(7),
                                    {side(count, pool.store, ours), side(count, pool.raw, theirs)});
    const double gigabytes =
        1e-9 * static_cast<double>(pool.order.size()) * static_cast<double>(pool.page_bytes);
    const bool judged = caching == Caching::direct && count >= 8 && pool.page_bytes == kJudgedBytes;
    run.rows.push_back(rate_row("read " + std::to_string(pool.page_bytes >> 10) + " KB, " +
                                    to_string(caching) + ", " + std::to_string(count) + " threads",
                                "GB/s", gigabytes, seconds[0], seconds[1],
                                judged ? std::optional(0.8) : std::nullopt));
  }
}

}  // namespace

void bench_reads(StoreRun& run) {
  for (const std::size_t kilobytes : {64u, 16u, 256u}) {
    const std::size_t page_bytes = kilobytes << 10;
    const std::size_t pages = run.size((std::size_t{512} << 20) / page_bytes, 32);
    // 128 MB a repetition; of small pages, 4,096.
    const std::size_t reads =
        std::min({pages, std::size_t{4096}, (std::size_t{128} << 20) / page_bytes});
    const Pool pool = make_pool(run, page_bytes, pages, reads);
    for (const Caching caching : {Caching::direct, Caching::cold, Caching::warm}) {
      read_rows(run, pool, caching,
                run.smoke ? std::vector<std::size_t>{1, 4} : std::vector<std::size_t>{1, 4, 8, 16});
    }
    fs::remove_all(pool.store);
    fs::remove(pool.raw);
  }
}

}  // namespace perennial::bench
