// SPDX-License-Identifier: Apache-2.0
// Commits in flight, and trying again after the disk refused.
#include "run/committer.h"

#include <thread>
#include <utility>

#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Between two tries. A full disk seldom empties faster.
constexpr seconds kPause(2);

bool may_pass(const storage::Status& status) {
  return status.code() == storage::StatusCode::no_space ||
         status.code() == storage::StatusCode::io_error;
}

}  // namespace

Committer::Committer(storage::PageStore& store, Hooks hooks, std::chrono::duration<double> patience)
    : store_(store), hooks_(std::move(hooks)), patience_(patience) {}

Committer::~Committer() {
  if (flight_.valid()) flight_.wait();
}

bool Committer::start(const std::string& action) {
  if (flight_.valid() || Clock::now() < not_before_) return false;
  action_ = action;
  flight_ = store_.commit_async(hooks_.freeze(action, ""));
  return true;
}

void Committer::poll() {
  if (flight_.valid() && flight_.wait_for(seconds(0)) == std::future_status::ready) take_result();
}

void Committer::wait() {
  if (flight_.valid()) take_result();
}

// What throws gives the state back as a failure does.
storage::Result<storage::CommitInfo> Committer::outcome(
    const std::function<storage::Result<storage::CommitInfo>()>& commit) {
  try {
    return commit();
  } catch (const std::exception& error) {
    hooks_.failed({storage::StatusCode::io_error, error.what()});
    throw;
  }
}

void Committer::take_result() {
  const storage::Result<storage::CommitInfo> info = outcome([this] { return flight_.get(); });
  if (info.ok()) {
    hooks_.succeeded(*info, action_, "");
    return;
  }
  hooks_.failed(info.status());
  if (!may_pass(info.status())) throw StorageError(info.status());
  not_before_ = Clock::now() + kPause;
}

bool Committer::try_once(const std::string& action, const std::string& snapshot,
                         storage::Status& status) {
  const storage::CommitRequest request = hooks_.freeze(action, snapshot);
  const storage::Result<storage::CommitInfo> info = outcome([&] { return store_.commit(request); });
  status = info.status();
  if (info.ok()) {
    hooks_.succeeded(*info, action, snapshot);
  } else {
    hooks_.failed(status);
  }
  return info.ok();
}

void Committer::commit(const std::string& action, const std::string& snapshot) {
  wait();
  const Clock::time_point start = Clock::now();
  storage::Status status;
  for (bool failed_before = false; !try_once(action, snapshot, status);) {
    // A try whose outcome was unknown may have taken the snapshot's name: the next one finds
    // another.
    if (status.code() == storage::StatusCode::invalid_argument && failed_before) {
      failed_before = false;
      continue;
    }
    failed_before = true;
    if (!may_pass(status) || Clock::now() - start >= patience_) throw StorageError(status);
    for (const auto until = Clock::now() + kPause; Clock::now() < until;) {
      if (hooks_.stop_requested && hooks_.stop_requested()) throw StorageError(status);
      std::this_thread::sleep_for(milliseconds(50));
    }
  }
  not_before_ = Clock::time_point::min();
}

}  // namespace perennial::continual
