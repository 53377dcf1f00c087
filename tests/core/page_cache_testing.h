// SPDX-License-Identifier: Apache-2.0
// A store in a map and pages of 64 words, for tests of the page cache without torch.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "perennial/core/error.h"
#include "pool/page_cache.h"

namespace perennial::testing {

inline constexpr std::size_t kWords = 64;
inline constexpr std::size_t kFrameBytes = kWords * 4;
using Words = std::vector<std::uint32_t>;
// Nothing happens in the background.
inline constexpr PageCacheOptions kQuiet{.spill_ahead = 0, .shadow_frames = 0};

inline std::uint64_t weights_page(std::uint32_t page, std::uint32_t region = 0) {
  return PageKey{storage::PageKind::weights, region, page}.packed();
}
inline std::uint64_t state_page(std::uint32_t page, std::uint32_t region = 0) {
  return PageKey{storage::PageKind::state, region, page}.packed();
}

// Every word of a page differs from its neighbours and from other pages and versions.
inline Words content_of(std::uint64_t page, std::uint32_t version) {
  Words words(kWords);
  for (std::size_t i = 0; i < kWords; ++i) {
    words[i] = static_cast<std::uint32_t>(page * 2654435761U + (page >> 32) * 97 + i) ^
               (version * 0x01000193U);
  }
  return words;
}

// Region r has the rows from 100,000 r on, a page each.
class TestSource : public PageSource {
 public:
  explicit TestSource(std::uint32_t pool = 0) : pool_(pool) {}
  storage::PageId id(PageKey page) const override {
    return {page.kind, pool_, page.region * 100'000 + page.page, 0};
  }
  storage::PageShape shape(storage::PageKind) const override {
    return {storage::DType::f32, 4, kWords / 4};
  }
  void fill_initial(PageKey page, std::span<std::byte> bytes) const override {
    const Words words = content_of(page.packed(), 0);
    std::memcpy(bytes.data(), words.data(), bytes.size());
    ++filled;
  }
  static std::uint64_t page_of(const storage::PageId& id) {
    return PageKey{id.kind, id.row / 100'000, id.row % 100'000}.packed();
  }
  mutable std::atomic<int> filled = 0;

 private:
  std::uint32_t pool_;
};

class MapStore : public storage::PageReader {
 public:
  bool contains(const storage::PageId& id) const override {
    const std::lock_guard lock(mutex_);
    return pages_.contains(id);
  }
  storage::Status read_page(const storage::PageId& id,
                            std::span<std::byte> payload) const override {
    ++reads;
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    const std::lock_guard lock(mutex_);
    const auto found = pages_.find(id);
    if (found == pages_.end()) return {storage::StatusCode::not_found, to_string(id)};
    if (failing.contains(id)) {
      return {storage::StatusCode::io_error, "injected failure of " + to_string(id)};
    }
    std::memcpy(payload.data(), found->second.data(), payload.size());
    return {};
  }
  std::filesystem::path scratch_folder() const override { return scratch; }

  // Takes all payloads and then becomes the new state, or stays as it was.
  storage::Status commit(const storage::CommitRequest& request) {
    std::map<storage::PageId, Words> written;
    const storage::PageId* last = nullptr;
    for (const storage::PageWrite& write : request.pages) {
      EXPECT_TRUE(last == nullptr || *last < write.id) << "ids must ascend";
      last = &write.id;
      const auto payload = write.payload();
      if (!payload.ok()) return payload.status();
      Words words(kWords);
      std::memcpy(words.data(), payload.value().data(), kFrameBytes);
      written[write.id] = words;
    }
    const std::lock_guard lock(mutex_);
    for (auto& [id, words] : written) pages_[id] = words;
    for (const storage::PageId& id : request.removed_pages) pages_.erase(id);
    pages_written += written.size();
    return {};
  }
  std::map<storage::PageId, Words> content() const {
    const std::lock_guard lock(mutex_);
    return pages_;
  }
  void fail(const storage::PageId& id) {
    const std::lock_guard lock(mutex_);
    failing.insert(id);
  }
  void heal() {
    const std::lock_guard lock(mutex_);
    failing.clear();
  }

  mutable std::atomic<int> reads = 0;
  std::uint64_t pages_written = 0;
  std::chrono::milliseconds delay{0};
  std::filesystem::path scratch = std::filesystem::temp_directory_path();

  storage::Result<storage::PageShape> page_shape(const storage::PageId&) const override {
    return unused();
  }
  std::vector<storage::PageId> pages() const override { return {}; }
  storage::Result<storage::Digest> page_digest(const storage::PageId&) const override {
    return unused();
  }
  storage::Result<storage::Bytes> read_dense(const std::string&) const override { return unused(); }
  std::vector<std::string> dense_names() const override { return {}; }
  storage::Result<storage::Digest> dense_digest(const std::string&) const override {
    return unused();
  }
  storage::Result<std::uint64_t> dense_size(const std::string&) const override { return unused(); }
  storage::Result<storage::VerifyReport> verify(const storage::VerifyOptions&) override {
    return unused();
  }
  storage::Result<std::uint64_t> size_bytes() const override { return unused(); }
  storage::Result<storage::CommitInfo> head() const override { return unused(); }
  std::vector<storage::CommitInfo> log() const override { return {}; }
  storage::Result<std::uint64_t> resolve(const std::string&) const override { return unused(); }
  storage::StoreIdentity identity() const override { return {}; }
  std::string location() const override { return "map"; }

 private:
  static storage::Status unused() { return {storage::StatusCode::not_found, "not in this store"}; }
  mutable std::mutex mutex_;
  std::map<storage::PageId, Words> pages_;
  std::set<storage::PageId> failing;
};

inline constexpr std::uint32_t kUnlimited = 0;

// A cache of `frames` frames (or without a limit) and one region of `pages` pages of each kind.
struct TestCache {
  explicit TestCache(std::uint32_t frames, std::uint32_t pages, PageCacheOptions options = {})
      : cache(&store, frames * kFrameBytes, options) {
    const PageCache::Exclusive exclusive(cache);
    cache.add_region(source, 0, pages);
  }
  Words read(std::uint64_t page) const {
    const PageKey key = PageKey::of(page);
    const float* frame = cache.frames(key.kind, key.region)[key.page];
    Words words(kWords);
    std::memcpy(words.data(), frame, kFrameBytes);
    return words;
  }
  // Under a pin for writing.
  void put(std::uint64_t page, std::uint32_t version) {
    const PageKey key = PageKey::of(page);
    const Words words = content_of(page, version);
    std::memcpy(cache.frames(key.kind, key.region)[key.page], words.data(), kFrameBytes);
  }
  Words load(std::uint64_t page) {
    PinSet pin;
    const auto pinned = cache.pin({.pages = {&page, 1}}, pin);
    EXPECT_TRUE(pinned.ok()) << pinned.status().to_string();
    return pinned.ok() ? read(page) : Words();
  }
  void write(std::uint64_t page, std::uint32_t version, std::uint8_t expert = 0) {
    PinSet pin;
    const std::uint64_t touched = std::uint64_t{1} << expert;
    const auto pinned =
        cache.pin({.pages = {&page, 1}, .use = PinUse::write, .experts = {&touched, 1}}, pin);
    ASSERT_TRUE(pinned.ok()) << pinned.status().to_string();
    put(page, version);
  }
  storage::Status commit() {
    storage::CommitRequest request;
    cache.begin_epoch(request);
    const storage::Status status = store.commit(request);
    cache.end_epoch(status.ok());
    return status;
  }
  PageState state(std::uint64_t page) const { return cache.state(PageKey::of(page)); }

  TestSource source;
  MapStore store;
  PageCache cache;
};

}  // namespace perennial::testing
