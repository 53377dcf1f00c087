// SPDX-License-Identifier: Apache-2.0
// The commits of a run: some at once, others written while training goes on.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <string>

#include "perennial/storage/page_store.h"

namespace perennial::continual {

// Single-threaded; the store writes on a thread of its own.
class Committer {
 public:
  struct Hooks {
    // Takes the state as it is now into a request; from then on it may change again.
    std::function<storage::CommitRequest(const std::string& action, const std::string& snapshot)>
        freeze;
    // The request of the last freeze was committed, or was not.
    std::function<void(const storage::CommitInfo& info, const std::string& action,
                       const std::string& snapshot)>
        succeeded;
    std::function<void(const storage::Status& status)> failed;
    // True gives up waiting for a disk that refuses.
    std::function<bool()> stop_requested;
  };

  // `patience`: how long commit() tries again while the disk is full or refuses.
  Committer(storage::PageStore& store, Hooks hooks, std::chrono::duration<double> patience);
  // Waits for a commit in flight.
  ~Committer();
  Committer(const Committer&) = delete;
  Committer& operator=(const Committer&) = delete;

  // Starts a commit and returns. Nothing happens while one is in flight, or for a while after one
  // has failed: false then.
  bool start(const std::string& action);
  // Takes in the result of a commit that has ended since. Throws StorageError for a failure that
  // trying again cannot help.
  void poll();
  // Waits for a commit in flight and takes its result in.
  void wait();
  // Commits and returns when that is durable. Throws StorageError.
  void commit(const std::string& action, const std::string& snapshot);

 private:
  using Clock = std::chrono::steady_clock;
  storage::Result<storage::CommitInfo> outcome(
      const std::function<storage::Result<storage::CommitInfo>()>& commit);
  void take_result();
  bool try_once(const std::string& action, const std::string& snapshot, storage::Status& status);

  storage::PageStore& store_;
  Hooks hooks_;
  std::chrono::duration<double> patience_;
  std::future<storage::Result<storage::CommitInfo>> flight_;
  std::string action_;
  Clock::time_point not_before_ = Clock::time_point::min();
};

}  // namespace perennial::continual
