// SPDX-License-Identifier: Apache-2.0
// VersionedStore: the PageStore over any Backend. Tables, records, digests, snapshots and the order
// of a commit live here, so the memory and the RocksDB store cannot differ in them.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "backend.h"
#include "dense_plan.h"
#include "perennial/storage/mutex.h"
#include "perennial/storage/page_store.h"
#include "state.h"

namespace perennial::storage {

struct VersionedStoreOptions {
  std::uint32_t full_table_every = 64;
  bool reclaim_in_background = false;
};

class VersionedStore final : public PageStore {
 public:
  VersionedStore(std::unique_ptr<Backend> backend, const VersionedStoreOptions& options);
  ~VersionedStore() override;

  // Reads the state of the backend's last commit. On failure the store must not be used.
  Status load();

  bool contains(const PageId& id) const override;
  Result<PageShape> page_shape(const PageId& id) const override;
  Status read_page(const PageId& id, std::span<std::byte> payload) const override;
  std::vector<PageId> pages() const override;
  Result<Digest> page_digest(const PageId& id) const override;
  Result<Bytes> read_dense(const std::string& name) const override;
  std::vector<std::string> dense_names() const override;
  Result<Digest> dense_digest(const std::string& name) const override;
  Result<std::uint64_t> dense_size(const std::string& name) const override;
  Result<CommitInfo> head() const override;
  std::vector<CommitInfo> log() const override;
  Result<std::uint64_t> resolve(const std::string& name) const override;
  Result<VerifyReport> verify(const VerifyOptions& options) override;
  Result<std::uint64_t> size_bytes() const override;
  StoreIdentity identity() const override;
  std::string location() const override;
  std::filesystem::path scratch_folder() const override;

  Result<CommitInfo> commit(const CommitRequest& request) override;
  std::future<Result<CommitInfo>> commit_async(CommitRequest request) override;
  Result<CommitInfo> restore(const RestoreRequest& request) override;
  Result<CommitInfo> drop(const std::vector<std::uint64_t>& commits,
                          const std::string& note) override;
  Retention retention() const override;
  Result<std::unique_ptr<PageReader>> at(std::uint64_t commit) const override;
  Result<ReclaimReport> reclaim(const ReclaimOptions& options) override;
  StoreCounters counters() const override;

 private:
  bool is_forked() const;  // in a child of the process that opened the store
  StatePtr state() const;
  void set_state(StatePtr state);
  // Waits for a commit in flight, then opens again what a failure closed.
  Status ready();
  Status ensure_open();  // from any thread
  void wait_for_flight();
  Status check_request(const CommitRequest& request) const;
  Status check_snapshot(const std::string& name, const std::string& note) const;
  // ok if the commits may be dropped.
  Status check_drop(const std::set<std::uint64_t>& commits) const;
  std::set<std::uint64_t> pinned() const;

  Result<CommitInfo> build_and_publish(const CommitRequest& request);
  // Whether a record carries the full table.
  struct FullTable {
    bool wanted = false;
    bool needed = false;  // the record does not describe the difference to the commit before
    std::uint64_t most_pages = 0;
  };
  // The bytes that must be free for a commit.
  std::uint64_t estimate(const CommitRequest& request, const DensePlan& plan, const Record& record,
                         FullTable table) const;
  // Starts it in the backend. A full table for which there is no room is left to a later commit,
  // unless it is needed.
  Status begin(const CommitRequest& request, const DensePlan& plan, const Record& record,
               FullTable& table);
  Status write_pages(const CommitRequest& request, Record& record);
  // A record that follows the current state and changes nothing.
  Record next_record(const std::string& snapshot, const std::string& note) const;
  // Adds what the retention rule lets go to record.dropped.
  void apply_retention(Record& record) const;
  bool wants_full_table(const Record& record) const;
  // Fills the table and the catalog of a full record from the state that it makes.
  static void add_full_table(const State& state, Record& record);
  // Writes the record last, publishes, and makes its state the current one.
  Result<CommitInfo> finish(Record record, State next);
  Result<CommitInfo> publish_record(Record record, State next, FullTable table);
  void reclaim_soon();
  void look_again_later();

  Result<ReclaimReport> reclaim_now(const ReclaimOptions& options);

  std::unique_ptr<Backend> backend_;
  VersionedStoreOptions options_;
  pid_t pid_;

  mutable Mutex state_mutex_;
  StatePtr state_ PERENNIAL_GUARDED_BY(state_mutex_) = std::make_shared<const State>();

  // Commits that at() readers keep from being dropped. Shared with them.
  struct Pins {
    Mutex mutex;
    std::multiset<std::uint64_t> commits PERENNIAL_GUARDED_BY(mutex);
  };
  std::shared_ptr<Pins> pins_ = std::make_shared<Pins>();

  mutable std::atomic<std::uint64_t> pages_read_{0};
  mutable std::atomic<std::uint64_t> bytes_read_{0};
  mutable Mutex counters_mutex_;
  StoreCounters written_ PERENNIAL_GUARDED_BY(counters_mutex_);
  // Of the last pass in the background.
  std::string reclaim_error_ PERENNIAL_GUARDED_BY(counters_mutex_);

  Mutex history_;              // held while a commit is written or the backend is opened again
  mutable Mutex maintenance_;  // verify reads what reclaim removes
  // Beyond either, the store's files are worth a look by the background reclaiming.
  std::atomic<std::uint64_t> look_above_bytes_{0};
  std::atomic<std::size_t> look_above_files_{0};
  std::atomic<bool> reclaim_queued_{false};
  std::atomic<bool> closing_{false};
  std::shared_future<void> flight_;  // the commit in flight
  // Last, so that they end first.
  std::unique_ptr<boost::asio::thread_pool> commit_thread_;
  std::unique_ptr<boost::asio::thread_pool> reclaim_thread_;
};

}  // namespace perennial::storage
