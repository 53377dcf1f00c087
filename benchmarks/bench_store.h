// SPDX-License-Identifier: Apache-2.0
// What the parts of bench_store share: the run, its rows, stores with known content.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comparison.h"
#include "perennial/storage/page_store.h"
#include "perennial/storage/rocksdb_store.h"
#include "raw_device.h"

namespace perennial::bench {

struct StoreRun {
  bool smoke = false;
  std::filesystem::path folder;  // empty; each part leaves it empty
  std::vector<Row> rows;

  std::size_t repetitions(std::size_t usual) const { return smoke ? 1 : usual; }
  std::size_t size(std::size_t usual, std::size_t smallest) const {
    return smoke ? smallest : usual;
  }
};

void bench_reads(StoreRun& run);          // store_reads.cc
void bench_commits(StoreRun& run);        // store_commits.cc: latency beside write and fsync
void bench_amplification(StoreRun& run);  // store_written.cc: bytes written, steadiness
void bench_reclaim(StoreRun& run);        // store_written.cc: the same with space given back
void bench_deltas(StoreRun& run);         // store_deltas.cc
void bench_stall(StoreRun& run);          // store_stall.cc: training while a commit is written
void bench_dense(StoreRun& run);          // store_dense.cc: the same of a dense model
void bench_cache(StoreRun& run);          // store_cache.cc: the page cache of the pager
void bench_open(StoreRun& run);           // store_open.cc
void bench_naive(StoreRun& run);          // store_naive.cc

// Runs every side once a repetition, each time starting with another one; a side returns what it
// measured. result[side][repetition].
using Sides = std::vector<std::function<double()>>;
std::vector<std::vector<double>> interleave(std::size_t repetitions, const Sides& sides);

// A row of times, shown as rates: `work` in the unit a call. The ratio is the median of the ratios
// of each repetition, whose sides ran right after each other: a device that changes its speed in
// between (cloud disks do) does not decide it.
Row rate_row(std::string name, std::string unit, double work, const std::vector<double>& ours,
             const std::vector<double>& baseline, std::optional<double> target = {});
// The same, shown as milliseconds.
Row time_row(std::string name, const std::vector<double>& ours, const std::vector<double>& baseline,
             std::optional<double> target = {});
// A row "value <= limit": the median of the values.
Row limit_row(std::string name, std::string unit, const std::vector<double>& values, double limit);
// The same where the limit is a multiple of `baseline`.
Row limit_row(std::string name, std::string unit, const std::vector<double>& values,
              const std::vector<double>& baseline, double multiple);
// A row without a target, of whatever is better when it is smaller.
Row less_row(std::string name, std::string unit, const std::vector<double>& values,
             const std::vector<double>& baseline);
// The value below which `share` of the values are.
double quantile(std::vector<double> values, double share);

// Throws the message of what failed.
void must(const storage::Status& status);
template <class T>
T must(storage::Result<T> result) {
  must(result.status());
  return std::move(*result);
}

// Keeps the files as the commits leave them, unless told otherwise.
std::unique_ptr<storage::PageStore> open_store(const std::filesystem::path& folder,
                                               const storage::RocksdbStoreOptions& options = {
                                                   .mode = storage::OpenMode::either,
                                                   .reclaim_in_background = false});

// Page number i of a pool, 64 to a row.
storage::PageId page_id(std::size_t index);
// Experts of 2 KiB (width 256: u and v, float32).
inline constexpr std::uint32_t kExpertFloats = 512;
inline constexpr std::size_t kExpertBytes = kExpertFloats * sizeof(float);
inline constexpr std::size_t kPageBytes = std::size_t{64} << 10;
storage::PageShape page_shape(std::size_t page_bytes);

// Pages cut from one block of bytes, starting over at its end.
class PageSource {
 public:
  PageSource(std::size_t page_bytes, std::size_t distinct);
  std::span<const std::byte> page(std::size_t index) const;
  std::span<const std::byte> all() const { return {bytes_.get(), page_bytes_ * distinct_}; }
  storage::PageWrite write(std::size_t index) const { return write(index, index); }
  // Page `index` with the content of number `content`.
  storage::PageWrite write(std::size_t index, std::size_t content) const;
  // Pages 0, 1, ... count - 1, into a store that keeps every commit.
  storage::CommitRequest first(std::size_t count) const;

 private:
  std::size_t page_bytes_;
  std::size_t distinct_;
  AlignedBytes bytes_;
};

}  // namespace perennial::bench
