// SPDX-License-Identifier: Apache-2.0
// What a rewrite tells RocksDB's compaction: which keys stay, how fast, and when to give up.
#pragma once

#include <rocksdb/compaction_filter.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "backend.h"
#include "perennial/storage/mutex.h"

namespace perennial::storage {

// One rewrite. Thread-safe.
class RewriteJob {
 public:
  // `keep` must outlive the job.
  RewriteJob(const Backend::Keep* keep, std::uint64_t bytes_per_second)
      : keep_(keep), bytes_per_second_(bytes_per_second) {}

  bool keeps(const std::string& key) const { return keep_ == nullptr || (*keep_)(key); }
  // Sleeps as long as reading so many bytes more may take.
  void read(std::uint64_t bytes);
  void stop();
  bool stopped() const;

 private:
  const Backend::Keep* keep_;
  const std::uint64_t bytes_per_second_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  mutable Mutex mutex_;
  Condition changed_;
  std::uint64_t bytes_ PERENNIAL_GUARDED_BY(mutex_) = 0;
  bool stopped_ PERENNIAL_GUARDED_BY(mutex_) = false;
};

// Gives compactions the filter of the job that runs; without one they keep everything.
class RewriteFilterFactory final : public rocksdb::CompactionFilterFactory {
 public:
  std::unique_ptr<rocksdb::CompactionFilter> CreateCompactionFilter(
      const rocksdb::CompactionFilter::Context& context) override;
  const char* Name() const override { return "perennial.RewriteFilterFactory"; }

  // False if jobs are not welcome: the database is being closed.
  bool begin(std::shared_ptr<RewriteJob> job);
  void end();
  // Stops the job that runs and lets none begin until welcome().
  void stop();
  void welcome();

 private:
  Mutex mutex_;
  std::shared_ptr<RewriteJob> job_ PERENNIAL_GUARDED_BY(mutex_);
  bool welcome_ PERENNIAL_GUARDED_BY(mutex_) = true;
};

}  // namespace perennial::storage
