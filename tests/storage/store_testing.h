// SPDX-License-Identifier: Apache-2.0
// Helpers of the storage tests: temporary folders, pages with known content, a model of a state.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "perennial/storage/page_store.h"

namespace perennial::storage::testing {

// A folder that goes with the test.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "perennial.XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Bytes that depend on every one of the arguments.
inline Bytes bytes_of(std::uint64_t seed, std::size_t size) {
  Bytes bytes(size);
  std::uint64_t x = seed * 0x9E3779B97F4A7C15ull + size + 1;
  for (std::byte& byte : bytes) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    byte = std::byte(x >> 24);
  }
  return bytes;
}

// Flips a bit of the only copy of `bytes` that the files under `folder` have.
inline void flip_a_bit_of(std::span<const std::byte> bytes, const std::filesystem::path& folder) {
  const std::string wanted(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  int found = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    std::string all{std::istreambuf_iterator<char>(in), {}};
    const std::size_t at = all.find(wanted);
    if (at == std::string::npos) continue;
    ++found;
    all[at + wanted.size() / 2] = static_cast<char>(all[at + wanted.size() / 2] ^ 4);
    std::ofstream(entry.path(), std::ios::binary) << all;
  }
  ASSERT_EQ(found, 1);
}

inline PageId weights(std::uint32_t row, std::uint32_t tile, std::uint32_t pool = 0) {
  return {PageKind::weights, pool, row, tile};
}

inline PageShape shape_of(std::uint32_t experts, std::uint32_t record_floats) {
  return {DType::f32, experts, record_floats};
}

// A state as the caller knows it: what every read must return.
struct Model {
  struct Page {
    PageShape shape;
    Bytes payload;
  };
  std::map<PageId, Page> pages;
  std::map<std::string, Bytes> dense;
};

// A commit in the making, and the model after it.
class Change {
 public:
  explicit Change(Model& model) : model_(model) {}

  Change& page(const PageId& id, std::uint64_t seed, PageShape shape = shape_of(4, 16)) {
    model_.pages[id] = {shape, bytes_of(seed, shape.payload_bytes())};
    written_[id] = model_.pages[id];
    changed_.erase(id);
    return *this;
  }
  // Changes some experts of a page that is there, and says which.
  Change& experts(const PageId& id, std::uint64_t changed, std::uint64_t seed) {
    Model::Page& page = model_.pages.at(id);
    const std::size_t record = page.payload.size() / page.shape.experts;
    const Bytes fresh = bytes_of(seed, page.payload.size());
    for (std::uint32_t i = 0; i < page.shape.experts; ++i) {
      if ((changed >> i & 1) != 0) {
        std::memcpy(page.payload.data() + i * record, fresh.data() + i * record, record);
      }
    }
    const bool whole = written_.contains(id) && !changed_.contains(id);
    written_[id] = page;
    if (!whole) changed_[id] |= changed;
    return *this;
  }
  Change& remove(const PageId& id) {
    model_.pages.erase(id);
    request.removed_pages.push_back(id);
    return *this;
  }
  Change& dense(const std::string& name, Bytes bytes) {
    model_.dense[name] = bytes;
    request.dense[name] = std::move(bytes);
    return *this;
  }
  Change& remove_dense(const std::string& name) {
    model_.dense.erase(name);
    request.removed_dense.push_back(name);
    return *this;
  }
  Change& snapshot(const std::string& name) {
    request.snapshot = name;
    return *this;
  }
  // The request; it refers to this object.
  const CommitRequest& get() {
    request.pages.clear();
    for (const auto& [id, page] : written_) {
      request.pages.push_back({id, page.shape,
                               [&page = page] {
                                 return Result<std::span<const std::byte>>(
                                     std::span<const std::byte>(page.payload));
                               },
                               changed_.contains(id) ? changed_.at(id) : 0});
    }
    return request;
  }

  CommitRequest request;

 private:
  Model& model_;
  std::map<PageId, Model::Page> written_;
  std::map<PageId, std::uint64_t> changed_;
};

// Empty if the store's state is exactly the model's; otherwise what differs first.
inline std::string difference(const PageReader& store, const Model& model) {
  std::vector<PageId> expected;
  for (const auto& [id, page] : model.pages) expected.push_back(id);
  if (store.pages() != expected) {
    return "lists " + std::to_string(store.pages().size()) + " pages, expected " +
           std::to_string(expected.size());
  }
  for (const auto& [id, page] : model.pages) {
    const Result<PageShape> shape = store.page_shape(id);
    if (!shape.ok()) return shape.status().to_string();
    if (!(*shape == page.shape)) return to_string(id) + ": other shape";
    Bytes payload(page.payload.size());
    if (Status status = store.read_page(id, payload); !status.ok()) return status.to_string();
    if (payload != page.payload) return to_string(id) + ": other bytes";
    const Result<Digest> digest = store.page_digest(id);
    if (!digest.ok() || *digest != digest_of(payload)) return to_string(id) + ": other digest";
  }
  std::vector<std::string> names;
  for (const auto& [name, bytes] : model.dense) names.push_back(name);
  if (store.dense_names() != names) return "other dense names";
  for (const auto& [name, bytes] : model.dense) {
    const Result<Bytes> found = store.read_dense(name);
    if (!found.ok()) return found.status().to_string();
    if (*found != bytes) return "dense entry " + name + ": other bytes";
  }
  return "";
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
}

// Relative path -> content of every file; folders end in '/'.
inline std::map<std::string, std::string> contents_of(const std::filesystem::path& folder) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string name = std::filesystem::relative(entry.path(), folder).string();
    if (entry.is_directory()) {
      contents[name + "/"] = "";
    } else {
      contents[name] = read_text(entry.path());
    }
  }
  return contents;
}

}  // namespace perennial::storage::testing
