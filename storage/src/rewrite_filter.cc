// SPDX-License-Identifier: Apache-2.0
// The compaction filter of a rewrite.
#include "rewrite_filter.h"

#include <utility>

namespace perennial::storage {
namespace {

class RewriteFilter final : public rocksdb::CompactionFilter {
 public:
  explicit RewriteFilter(std::shared_ptr<RewriteJob> job) : job_(std::move(job)) {}

  Decision FilterV2(int, const rocksdb::Slice& key, ValueType type, const rocksdb::Slice& value,
                    std::string*, std::string*) const override {
    const bool keep = type != ValueType::kValue || job_->keeps(key.ToString());
    job_->read(key.size() + value.size());
    return keep ? Decision::kKeep : Decision::kRemove;
  }
  bool IgnoreSnapshots() const override { return true; }
  const char* Name() const override { return "perennial.RewriteFilter"; }

 private:
  std::shared_ptr<RewriteJob> job_;
};

}  // namespace

void RewriteJob::read(std::uint64_t bytes) {
  if (bytes_per_second_ == 0) return;
  const MutexLock lock(mutex_);
  bytes_ += bytes;
  const std::chrono::duration<double> due(static_cast<double>(bytes_) /
                                          static_cast<double>(bytes_per_second_));
  const std::chrono::steady_clock::time_point end =
      start_ + std::chrono::duration_cast<std::chrono::steady_clock::duration>(due);
  while (!stopped_ && std::chrono::steady_clock::now() < end) changed_.wait_until(mutex_, end);
}

void RewriteJob::stop() {
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

bool RewriteJob::stopped() const {
  const MutexLock lock(mutex_);
  return stopped_;
}

std::unique_ptr<rocksdb::CompactionFilter> RewriteFilterFactory::CreateCompactionFilter(
    const rocksdb::CompactionFilter::Context&) {
  const MutexLock lock(mutex_);
  if (job_ == nullptr) return nullptr;
  return std::make_unique<RewriteFilter>(job_);
}

bool RewriteFilterFactory::begin(std::shared_ptr<RewriteJob> job) {
  const MutexLock lock(mutex_);
  if (!welcome_) return false;
  job_ = std::move(job);
  return true;
}

void RewriteFilterFactory::end() {
  const MutexLock lock(mutex_);
  job_.reset();
}

void RewriteFilterFactory::stop() {
  const MutexLock lock(mutex_);
  welcome_ = false;
  if (job_ != nullptr) job_->stop();
}

void RewriteFilterFactory::welcome() {
  const MutexLock lock(mutex_);
  welcome_ = true;
}

}  // namespace perennial::storage
