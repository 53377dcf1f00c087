// SPDX-License-Identifier: Apache-2.0
// The in-memory store: the same keys and values as on disk, in a map.
#include "perennial/storage/memory_store.h"

#include <map>
#include <string>

#include "backend.h"
#include "text.h"
#include "versioned_store.h"

namespace perennial::storage {
namespace {

class MemoryBackend final : public Backend {
 public:
  Status get(const std::string& key, const Visit& visit) const override {
    const auto found = values_.find(key);
    if (found == values_.end()) return {StatusCode::not_found, "no such key"};
    return visit(found->second);
  }
  std::uint64_t last_commit() const override { return last_; }
  std::string file_of(std::uint64_t) const override { return "memory"; }
  std::uint64_t file_bytes(std::uint64_t) const override { return 0; }

  Status begin(std::uint64_t, std::uint64_t) override {
    staged_.clear();
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
    for (const auto& [key, value] : staged_) bytes_ += key.size() + value.size();
    values_.merge(staged_);
    staged_.clear();
    ++last_;
    return {};
  }
  void abandon() override { staged_.clear(); }

  bool closed() const override { return false; }
  Status reopen() override { return {}; }
  std::uint64_t reopens() const override { return 0; }
  void verify_files(std::vector<Damage>&) const override {}
  std::filesystem::path scratch_folder() const override {
    return std::filesystem::temp_directory_path();
  }
  Result<std::uint64_t> size_bytes() const override { return bytes_; }

 private:
  std::map<std::string, Bytes> values_;
  std::map<std::string, Bytes> staged_;
  std::uint64_t last_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<PageStore> make_memory_store() {
  constexpr std::uint32_t kFullTableEvery = 64;
  return std::make_unique<VersionedStore>(std::make_unique<MemoryBackend>(), kFullTableEvery);
}

}  // namespace perennial::storage
