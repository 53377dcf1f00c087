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
  std::unique_lock lock(mutex_);
  bytes_ += bytes;
  const std::chrono::duration<double> due(static_cast<double>(bytes_) /
                                          static_cast<double>(bytes_per_second_));
  changed_.wait_until(lock,
                      start_ + std::chrono::duration_cast<std::chrono::steady_clock::duration>(due),
                      [&] { return stopped_; });
}

void RewriteJob::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

bool RewriteJob::stopped() const {
  const std::lock_guard lock(mutex_);
  return stopped_;
}

std::unique_ptr<rocksdb::CompactionFilter> RewriteFilterFactory::CreateCompactionFilter(
    const rocksdb::CompactionFilter::Context&) {
  const std::lock_guard lock(mutex_);
  if (job_ == nullptr) return nullptr;
  return std::make_unique<RewriteFilter>(job_);
}

bool RewriteFilterFactory::begin(std::shared_ptr<RewriteJob> job) {
  const std::lock_guard lock(mutex_);
  if (!welcome_) return false;
  job_ = std::move(job);
  return true;
}

void RewriteFilterFactory::end() {
  const std::lock_guard lock(mutex_);
  job_.reset();
}

void RewriteFilterFactory::stop() {
  const std::lock_guard lock(mutex_);
  welcome_ = false;
  if (job_ != nullptr) job_->stop();
}

void RewriteFilterFactory::welcome() {
  const std::lock_guard lock(mutex_);
  welcome_ = true;
}

}  // namespace perennial::storage
