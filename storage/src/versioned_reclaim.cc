// SPDX-License-Identifier: Apache-2.0
// VersionedStore: reclaiming the space of dropped commits.
#include <algorithm>
#include <boost/asio/post.hpp>
#include <set>
#include <utility>

#include "live_set.h"
#include "text.h"
#include "versioned_store.h"

namespace perennial::storage {
namespace {

using Files = std::vector<BackendFile>;

constexpr std::size_t kLongestRun = 64;

std::uint64_t bytes_of(const Files& files) {
  std::uint64_t bytes = 0;
  for (const BackendFile& file : files) bytes += file.bytes;
  return bytes;
}

double dead_share(const BackendFile& file, const LiveSet& live) {
  const std::uint64_t kept = live.bytes(file.first_commit, file.last_commit);
  return kept >= file.bytes ? 0 : 1 - static_cast<double>(kept) / static_cast<double>(file.bytes);
}

// Neighbouring files that become one of at most `room` bytes.
struct Group {
  Files files;
  std::uint64_t room = 0;
  // Where that does not fit: those of several files that are worth being rewritten by themselves.
  std::vector<Group> alone = {};
};

void by_room(std::vector<Group>& groups, const LiveSet& live) {
  for (Group& group : groups) {
    for (const BackendFile& file : group.files) {
      group.room += live.file_bytes(file.first_commit, file.last_commit);
    }
    by_room(group.alone, live);
  }
  // Where there is little room, what fits makes more.
  std::ranges::stable_sort(groups, {}, &Group::room);
}

// What to do, decided once.
struct Plan {
  Files dead;
  std::vector<Group> groups;
};

// Ends a run of small files: long ones are folded, and lone ones rewritten if they are mostly dead.
void end_run(Files& run, const std::set<std::uint64_t>& wanted, std::uint32_t fold_files,
             Plan& plan) {
  std::vector<Group> alone;
  for (const BackendFile& file : run) {
    if (wanted.contains(file.first_commit)) alone.push_back({{file}});
  }
  if (fold_files > 0 && run.size() >= fold_files) {
    plan.groups.push_back({.files = run, .alone = std::move(alone)});
  } else {
    plan.groups.insert(plan.groups.end(), alone.begin(), alone.end());
  }
  run.clear();
}

// The deadest files first, until the rest is small enough; then everything above max_dead.
std::set<std::uint64_t> files_to_rewrite(const Files& files, const LiveSet& live,
                                         const ReclaimOptions& options) {
  std::vector<std::pair<double, const BackendFile*>> by_death;
  double total = 0;
  double kept = 0;
  for (const BackendFile& file : files) {
    by_death.emplace_back(dead_share(file, live), &file);
    total += static_cast<double>(file.bytes);
    kept += static_cast<double>(live.bytes(file.first_commit, file.last_commit));
  }
  std::ranges::sort(by_death, std::greater<>());
  std::set<std::uint64_t> wanted;
  for (const auto& [dead, file] : by_death) {
    const bool too_large = options.target_space > 0 && total > options.target_space * kept;
    if (dead <= 0 || (dead <= options.max_dead && !too_large)) break;
    wanted.insert(file->first_commit);
    total -= dead * static_cast<double>(file->bytes);
  }
  return wanted;
}

Plan make_plan(Files files, const LiveSet& live, const ReclaimOptions& options) {
  Plan plan;
  // The newest commit's file stays, and what came after the live set was collected.
  std::erase_if(files, [&](const BackendFile& file) { return file.last_commit >= live.newest(); });
  std::erase_if(files, [&](const BackendFile& file) {
    const bool dead = live.bytes(file.first_commit, file.last_commit) == 0;
    if (dead) plan.dead.push_back(file);
    return dead;
  });
  const std::set<std::uint64_t> wanted = files_to_rewrite(files, live, options);
  Files run;
  for (const BackendFile& file : files) {
    if (options.fold_files > 0 && file.bytes < options.fold_bytes) {
      run.push_back(file);
      // A group is done at one go: not too long, so that stopping does not wait.
      if (run.size() == kLongestRun) end_run(run, wanted, options.fold_files, plan);
      continue;
    }
    end_run(run, wanted, options.fold_files, plan);
    if (wanted.contains(file.first_commit)) plan.groups.push_back({{file}});
  }
  end_run(run, wanted, options.fold_files, plan);
  by_room(plan.groups, live);
  return plan;
}

}  // namespace

Result<ReclaimReport> VersionedStore::reclaim_now(const ReclaimOptions& options) {
  if (Status status = ensure_open(); !status.ok()) return status;
  const StatePtr newest = state();  // before the pins, see at()
  ReclaimReport report;
  report.bytes_before = report.bytes_after = bytes_of(backend_->files());
  if (newest->info.commit == 0) return report;
  const Result<LiveSet> live = LiveSet::collect(*backend_, *newest, pinned());
  if (!live.ok()) return live.status();
  const Plan plan = make_plan(backend_->files(), *live, options);
  const auto stopped = [&] { return closing_ || (options.stop && options.stop()); };
  if (!plan.dead.empty() && !stopped()) {
    if (Status status = backend_->remove(plan.dead); !status.ok()) return status;
    report.files_removed = plan.dead.size();
  }
  const Backend::Keep keep = [&](const std::string& key) { return live->keeps(key); };
  Status no_room;
  const auto rewrite = [&](const Group& group) {
    Status status = backend_->rewrite(group.files, keep, group.room, options.bytes_per_second,
                                      report.bytes_rewritten);
    if (status.ok()) {
      report.files_rewritten += group.files.size();
    } else if (status.code() == StatusCode::no_space && !backend_->closed()) {
      report.files_left += group.files.size();
      no_room = std::exchange(status, {});
    }
    return status;
  };
  for (const Group& group : plan.groups) {
    if (stopped()) break;
    const std::uint64_t left = report.files_left;
    if (Status status = rewrite(group); !status.ok()) return status;
    if (report.files_left == left) continue;
    report.files_left -= group.alone.size();
    for (const Group& alone : group.alone) {
      if (Status status = rewrite(alone); !status.ok()) return status;
    }
  }
  if (!no_room.ok() && report.files_removed + report.files_rewritten == 0) return no_room;
  report.bytes_after = bytes_of(backend_->files());
  for (const Backend::Lease& lease : backend_->leases()) report.readers.push_back(lease.reader);
  return report;
}

Result<ReclaimReport> VersionedStore::reclaim(const ReclaimOptions& options) {
  const MutexLock lock(maintenance_);
  return reclaim_now(options);
}

// Collecting the live set costs a pass over the records, so it waits until there is something to
// win.
void VersionedStore::look_again_later() {
  constexpr std::uint64_t kSmall = std::uint64_t{16} << 20;
  const Files files = backend_->files();
  const std::uint64_t bytes = bytes_of(files);
  look_above_bytes_ = bytes + bytes / 4 + kSmall;
  look_above_files_ = files.size() + ReclaimOptions().fold_files;
}

// One pass at a time; what fails is tried again after a later commit.
void VersionedStore::reclaim_soon() {
  if (!options_.reclaim_in_background) return;
  const Files files = backend_->files();
  if (files.size() <= look_above_files_ && bytes_of(files) <= look_above_bytes_) return;
  if (reclaim_queued_.exchange(true)) return;
  boost::asio::post(*reclaim_thread_, [this] {
    reclaim_queued_ = false;
    if (closing_ || !maintenance_.try_lock()) return;
    const MutexLock lock(maintenance_, std::adopt_lock);
    const Result<ReclaimReport> report = reclaim_now(ReclaimOptions());
    if (report.ok()) look_again_later();
    const MutexLock counters(counters_mutex_);
    reclaim_error_ = report.ok() ? "" : report.status().to_string();
  });
}

}  // namespace perennial::storage
