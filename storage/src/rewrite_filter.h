// SPDX-License-Identifier: Apache-2.0
// What a rewrite tells RocksDB's compaction: which keys stay, how fast, and when to give up.
#pragma once

#include <rocksdb/compaction_filter.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "backend.h"

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
  std::uint64_t bytes_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopped_ = false;
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
  std::mutex mutex_;
  std::shared_ptr<RewriteJob> job_;
  bool welcome_ = true;
};

}  // namespace perennial::storage
