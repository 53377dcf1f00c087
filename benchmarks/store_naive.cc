// SPDX-License-Identifier: Apache-2.0
// The naive layout beside ours: one RocksDB key an expert, default options, synced log.
#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <random>

#include "bench_store.h"

namespace perennial::bench {
namespace {
namespace fs = std::filesystem;

constexpr std::size_t kExperts = kPageBytes / kExpertBytes;  // of a page: 32

class NaiveStore {
 public:
  explicit NaiveStore(const fs::path& folder) : folder_(folder) { open(); }

  void open() {
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* db = nullptr;
    check(rocksdb::DB::Open(options, folder_.string(), &db));
    db_.reset(db);
  }
  void close() {
    check(db_->Flush({}));
    check(db_->Close());
    db_.reset();
  }
  // The first `experts` experts of each of the pages [0, pages), as one durable batch.
  void commit(const PageSource& source, std::size_t pages, std::size_t experts) {
    rocksdb::WriteBatch batch;
    for (std::size_t page = 0; page < pages; ++page) {
      for (std::size_t expert = 0; expert < experts; ++expert) {
        const auto record = source.page(page).subspan(expert * kExpertBytes, kExpertBytes);
        check(batch.Put(key(page, expert),
                        {reinterpret_cast<const char*>(record.data()), record.size()}));
      }
    }
    rocksdb::WriteOptions options;
    options.sync = true;
    check(db_->Write(options, &batch));
  }
  void read_page(std::size_t page, std::span<std::byte> payload) const {
    rocksdb::PinnableSlice value;
    for (std::size_t expert = 0; expert < kExperts; ++expert) {
      check(db_->Get({}, db_->DefaultColumnFamily(), key(page, expert), &value));
      std::memcpy(payload.data() + expert * kExpertBytes, value.data(), value.size());
      value.Reset();
    }
  }

 private:
  static std::string key(std::size_t page, std::size_t expert) {
    const std::size_t id = page * kExperts + expert;
    std::string key(8, '\0');
    for (int i = 0; i < 8; ++i) key[std::size_t(i)] = static_cast<char>(id >> (56 - 8 * i));
    return key;
  }
  static void check(const rocksdb::Status& status) {
    if (!status.ok()) fail(status.ToString());
  }
  fs::path folder_;
  std::unique_ptr<rocksdb::DB> db_;
};

// Commits of 256 pages of which some experts are dirty; the page store writes whole pages.
void naive_commits(StoreRun& run) {
  const std::size_t pages = run.size(256, 16);
  const PageSource source(kPageBytes, pages);
  const fs::path ours = run.folder / "ours";
  const fs::path theirs = run.folder / "naive";
  std::vector<std::pair<double, double>> ratios;  // experts dirty, ours beside theirs
  {
    auto store = open_store(ours);
    NaiveStore naive(theirs);
    must(store->commit(source.first(pages)));
    naive.commit(source, pages, kExperts);
    for (const std::size_t dirty : {1u, 2u, 4u, 8u, 16u, 32u}) {
      const auto seconds = interleave(run.repetitions(9), {[&] {
                                                             const storage::CommitRequest request =
                                                                 source.first(pages);
                                                             const double start = now();
                                                             must(store->commit(request));
                                                             return now() - start;
                                                           },
                                                           [&] {
                                                             const double start = now();
                                                             naive.commit(source, pages, dirty);
                                                             return now() - start;
                                                           }});
      Row row = time_row(
          "commit 256 pages, " + std::to_string(dirty) + " of 32 experts dirty, one key an expert",
          seconds[0], seconds[1], dirty == kExperts ? std::optional(3.0) : std::nullopt);
      ratios.emplace_back(static_cast<double>(dirty), row.ratio);
      run.rows.push_back(std::move(row));
    }
  }
  fs::remove_all(ours);
  fs::remove_all(theirs);

  // Where the ratio passes 1, on a straight line between the neighbours.
  double crossover = ratios.front().second >= 1 ? ratios.front().first : ratios.back().first;
  for (std::size_t i = 1; i < ratios.size(); ++i) {
    const auto [below, low] = ratios[i - 1];
    const auto [above, high] = ratios[i];
    if (low < 1 && high >= 1) crossover = below + (above - below) * (1 - low) / (high - low);
  }
  run.rows.push_back({.name = "crossover: commits of whole pages win from so many dirty experts",
                      .unit = "of 32 experts",
                      .ours = summarize({crossover}),
                      .baseline = summarize({static_cast<double>(kExperts)}),
                      .ratio = static_cast<double>(kExperts) / crossover});
}

// Whole pages of experts from files that are not in the page cache.
void naive_loads(StoreRun& run) {
  const std::size_t pages = run.size(4096, 32);  // 256 MB
  const std::size_t loads = run.size(256, 4);
  const PageSource source(kPageBytes, pages);
  const fs::path ours = run.folder / "ours";
  const fs::path theirs = run.folder / "naive";
  must(open_store(ours)->commit(source.first(pages)));
  NaiveStore naive(theirs);
  naive.commit(source, pages, kExperts);
  naive.close();
  std::vector<std::size_t> order(pages);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::shuffle(order, std::mt19937(1));
  std::vector<std::byte> payload(kPageBytes);
  const auto check = [&](std::size_t page) {
    if (!std::ranges::equal(payload, source.page(page))) fail("a page was read back wrong");
  };
  const auto seconds =
      interleave(run.repetitions(7), {[&] {
                                        prepare_cache(ours, Caching::cold);
                                        const auto store = open_store(ours);
                                        const double start = now();
                                        for (std::size_t i = 0; i < loads; ++i) {
                                          must(store->read_page(page_id(order[i]), payload));
                                        }
                                        const double time = now() - start;
                                        check(order[loads - 1]);
                                        return time;
                                      },
                                      [&] {
                                        prepare_cache(theirs, Caching::cold);
                                        naive.open();
                                        const double start = now();
                                        for (std::size_t i = 0; i < loads; ++i) {
                                          naive.read_page(order[i], payload);
                                        }
                                        const double time = now() - start;
                                        check(order[loads - 1]);
                                        naive.close();
                                        return time;
                                      }});
  run.rows.push_back(rate_row("cold load of pages in random order, one key an expert", "GB/s",
                              1e-9 * static_cast<double>(loads * kPageBytes), seconds[0],
                              seconds[1], 5.0));
  fs::remove_all(ours);
  fs::remove_all(theirs);
}

}  // namespace

void bench_naive(StoreRun& run) {
  naive_commits(run);
  naive_loads(run);
}

}  // namespace perennial::bench
