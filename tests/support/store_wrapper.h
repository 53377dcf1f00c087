// SPDX-License-Identifier: Apache-2.0
// A page store that passes everything on to another one, and fails where a test tells it to.
#pragma once

#include <atomic>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "perennial/storage/page_store.h"

namespace perennial::testing {

// The wrapped store must outlive the wrapper.
class StoreWrapper : public storage::PageStore {
 public:
  explicit StoreWrapper(storage::PageStore& inner) : inner_(inner) {}

  // Reading this page fails; every read_page is counted, failed ones too.
  std::optional<storage::PageId> failing_page;
  // Where spill files would go, instead of the wrapped store's folder.
  std::optional<std::filesystem::path> scratch;
  mutable std::atomic<int> reads = 0;

  storage::Status read_page(const storage::PageId& id,
                            std::span<std::byte> payload) const override {
    ++reads;
    if (failing_page == id) {
      return {storage::StatusCode::io_error, "injected failure of " + storage::to_string(id)};
    }
    return inner_.read_page(id, payload);
  }
  std::filesystem::path scratch_folder() const override {
    return scratch ? *scratch : inner_.scratch_folder();
  }

  bool contains(const storage::PageId& id) const override { return inner_.contains(id); }
  storage::Result<storage::PageShape> page_shape(const storage::PageId& id) const override {
    return inner_.page_shape(id);
  }
  std::vector<storage::PageId> pages() const override { return inner_.pages(); }
  storage::Result<storage::Digest> page_digest(const storage::PageId& id) const override {
    return inner_.page_digest(id);
  }
  storage::Result<storage::Bytes> read_dense(const std::string& name) const override {
    return inner_.read_dense(name);
  }
  std::vector<std::string> dense_names() const override { return inner_.dense_names(); }
  storage::Result<storage::Digest> dense_digest(const std::string& name) const override {
    return inner_.dense_digest(name);
  }
  storage::Result<std::uint64_t> dense_size(const std::string& name) const override {
    return inner_.dense_size(name);
  }
  storage::StoreIdentity identity() const override { return inner_.identity(); }
  std::string location() const override { return inner_.location(); }
  storage::Result<storage::CommitInfo> commit(const storage::CommitRequest& request) override {
    return inner_.commit(request);
  }
  std::future<storage::Result<storage::CommitInfo>> commit_async(
      storage::CommitRequest request) override {
    return inner_.commit_async(std::move(request));
  }
  storage::Result<storage::CommitInfo> restore(const storage::RestoreRequest& request) override {
    return inner_.restore(request);
  }
  storage::Result<storage::CommitInfo> drop(const std::vector<std::uint64_t>& commits,
                                            const std::string& note) override {
    return inner_.drop(commits, note);
  }
  storage::Retention retention() const override { return inner_.retention(); }
  storage::Result<std::unique_ptr<storage::PageReader>> at(std::uint64_t commit) const override {
    return inner_.at(commit);
  }
  storage::Result<storage::ReclaimReport> reclaim(const storage::ReclaimOptions& options) override {
    return inner_.reclaim(options);
  }
  storage::Result<storage::CommitInfo> head() const override { return inner_.head(); }
  std::vector<storage::CommitInfo> log() const override { return inner_.log(); }
  storage::Result<std::uint64_t> resolve(const std::string& name) const override {
    return inner_.resolve(name);
  }
  storage::Result<storage::VerifyReport> verify(const storage::VerifyOptions& options) override {
    return inner_.verify(options);
  }
  storage::StoreCounters counters() const override { return inner_.counters(); }
  storage::Result<std::uint64_t> size_bytes() const override { return inner_.size_bytes(); }

 private:
  storage::PageStore& inner_;
};

}  // namespace perennial::testing
