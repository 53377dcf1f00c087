// SPDX-License-Identifier: Apache-2.0
// VersionedStore: the PageStore over any Backend. Tables, records, digests, snapshots and the order
// of a commit live here, so the memory and the RocksDB store cannot differ in them.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "backend.h"
#include "perennial/storage/page_store.h"
#include "record.h"
#include "state_table.h"

namespace perennial::storage {

class VersionedStore final : public PageStore {
 public:
  VersionedStore(std::unique_ptr<Backend> backend, std::uint32_t full_table_every);

  // Reads the state of the backend's last commit. On failure the store must not be used.
  Status load();

  bool contains(const PageId& id) const override;
  Result<PageShape> page_shape(const PageId& id) const override;
  Status read_page(const PageId& id, std::span<std::byte> payload) const override;
  std::vector<PageId> pages() const override;
  Result<Digest> page_digest(const PageId& id) const override;
  Result<Bytes> read_dense(const std::string& name) const override;
  std::vector<std::string> dense_names() const override;
  Result<CommitInfo> commit(const CommitRequest& request) override;
  Result<CommitInfo> restore(std::uint64_t commit, const std::string& snapshot,
                             const std::string& note) override;
  Result<CommitInfo> head() const override;
  std::vector<CommitInfo> log() const override;
  Result<std::uint64_t> resolve(const std::string& name) const override;
  Result<VerifyReport> verify() override;
  StoreCounters counters() const override;
  std::filesystem::path scratch_folder() const override;
  Result<std::uint64_t> size_bytes() const override;

 private:
  // New chunks of a commit by digest, and the dense table after it.
  struct DensePlan {
    DenseTable table;
    std::map<Digest, std::span<const std::byte>> new_chunks;
    std::uint64_t new_bytes = 0;
  };
  struct Loaded {
    StateTable state;
    std::map<std::string, std::uint64_t> snapshots;
    CommitInfo info;
    std::uint64_t full_commit = 0;  // the commit whose full table it was built from
  };

  Status ensure_open();
  Result<Record> read_record(std::uint64_t commit) const;
  Result<Loaded> load_commit(std::uint64_t commit) const;
  Status check_request(const CommitRequest& request) const;
  Status check_snapshot(const std::string& name, const std::string& note) const;
  DensePlan plan_dense(const CommitRequest& request) const;
  std::uint64_t estimate(const CommitRequest& request, const DensePlan& plan, bool full) const;
  Status write_chunks(const DensePlan& plan, std::uint64_t commit);
  Status write_pages(const CommitRequest& request, Record& record);
  // Fills the table and the snapshots of a full record from the state.
  void add_full_table(Record& record) const;
  Status write_record(const Record& record);
  void adopt(const Record& record);
  std::string where(std::uint64_t commit) const;
  void verify_commit(std::uint64_t commit, VerifyReport& report) const;

  std::unique_ptr<Backend> backend_;
  std::uint32_t full_table_every_;
  StateTable state_;
  std::map<std::string, std::uint64_t> snapshots_;
  CommitInfo head_;  // commit 0: empty store
  std::uint64_t last_full_ = 0;
  mutable std::atomic<std::uint64_t> pages_read_{0};
  mutable std::atomic<std::uint64_t> bytes_read_{0};
  StoreCounters written_;
};

}  // namespace perennial::storage
