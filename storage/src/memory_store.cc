// SPDX-License-Identifier: Apache-2.0
// The in-memory store: the same keys and values as on disk, in a map.
#include "perennial/storage/memory_store.h"

#include <algorithm>
#include <map>
#include <string>

#include "backend.h"
#include "keys.h"
#include "perennial/storage/mutex.h"
#include "text.h"
#include "versioned_store.h"

namespace perennial::storage {
namespace {

// A "file" is a range of commits.
class MemoryBackend final : public Backend {
 public:
  Status get(const std::string& key, const Visit& visit) const override {
    const ReaderLock lock(mutex_);
    const auto found = values_.find(key);
    if (found == values_.end()) return {StatusCode::not_found, "no such key"};
    return visit(found->second);
  }
  std::uint64_t last_commit() const override {
    const ReaderLock lock(mutex_);
    return files_.empty() ? 0 : files_.back().last_commit;
  }
  std::vector<BackendFile> files() const override {
    const ReaderLock lock(mutex_);
    return files_;
  }
  BackendFile file_of(std::uint64_t commit) const override {
    const ReaderLock lock(mutex_);
    const auto file = std::ranges::find_if(files_, [&](const BackendFile& f) {
      return f.first_commit <= commit && commit <= f.last_commit;
    });
    return file == files_.end() ? BackendFile() : *file;
  }

  Status begin(std::uint64_t commit, std::uint64_t) override {
    staged_.clear();
    building_ = commit;
    return {};
  }
  Status put(const std::string& key, std::span<const std::byte> head,
             std::span<const std::byte> body) override {
    Bytes value;
    value.reserve(head.size() + body.size());
    value.insert(value.end(), head.begin(), head.end());
    value.insert(value.end(), body.begin(), body.end());
    staged_.emplace_hint(staged_.end(), key, std::move(value));
    return {};
  }
  Status publish() override {
    const WriterLock lock(mutex_);
    BackendFile file{"memory", building_, building_, 0};
    for (const auto& [key, value] : staged_) file.bytes += key.size() + value.size();
    values_.merge(staged_);
    staged_.clear();
    files_.push_back(file);
    return {};
  }
  void abandon() override { staged_.clear(); }

  bool closed() const override { return false; }
  Status reopen() override { return {}; }
  std::uint64_t reopens() const override { return 0; }

  Status rewrite(const std::vector<BackendFile>& files, const Keep& keep, std::uint64_t,
                 std::uint64_t, std::uint64_t& written) override {
    const WriterLock lock(mutex_);
    const auto [begin, end] = range_of(files);
    BackendFile merged{"memory", files.front().first_commit, files.back().last_commit, 0};
    for (auto at = begin; at != end;) {
      if (!keep(at->first)) {
        at = values_.erase(at);
        continue;
      }
      merged.bytes += at->first.size() + at->second.size();
      ++at;
    }
    written += merged.bytes;
    replace(files, merged);
    return {};
  }
  Status remove(const std::vector<BackendFile>& files) override {
    const WriterLock lock(mutex_);
    for (const BackendFile& file : files) {
      const auto [begin, end] = range_of({file});
      values_.erase(begin, end);
      replace({file}, {});
    }
    return {};
  }

  std::vector<Lease> leases() const override { return {}; }
  void verify_files(std::vector<Damage>&,
                    const std::function<bool(std::uint64_t)>&) const override {}
  std::string location() const override { return "memory"; }
  std::filesystem::path scratch_folder() const override {
    return std::filesystem::temp_directory_path();
  }
  Result<std::uint64_t> size_bytes() const override {
    std::uint64_t bytes = 0;
    for (const BackendFile& file : files()) bytes += file.bytes;
    return bytes;
  }

 private:
  using Values = std::map<std::string, Bytes>;
  std::pair<Values::iterator, Values::iterator> range_of(const std::vector<BackendFile>& files)
      PERENNIAL_REQUIRES(mutex_) {
    return {values_.lower_bound(chunk_key(files.front().first_commit, Digest())),
            values_.upper_bound(record_key(files.back().last_commit))};
  }
  // The first of `files` becomes `merged`, or goes when that is empty.
  void replace(const std::vector<BackendFile>& files, const BackendFile& merged)
      PERENNIAL_REQUIRES(mutex_) {
    std::erase_if(files_, [&](const BackendFile& f) {
      return files.front().first_commit <= f.first_commit &&
             f.last_commit <= files.back().last_commit;
    });
    if (merged.bytes == 0) return;
    const auto place =
        std::ranges::lower_bound(files_, merged.first_commit, {}, &BackendFile::first_commit);
    files_.insert(place, merged);
  }

  mutable SharedMutex mutex_;
  Values values_ PERENNIAL_GUARDED_BY(mutex_);
  std::vector<BackendFile> files_ PERENNIAL_GUARDED_BY(mutex_);
  Values staged_;
  std::uint64_t building_ = 0;
};

}  // namespace

std::unique_ptr<PageStore> make_memory_store() {
  return std::make_unique<VersionedStore>(std::make_unique<MemoryBackend>(),
                                          VersionedStoreOptions{.reclaim_in_background = true});
}

}  // namespace perennial::storage
