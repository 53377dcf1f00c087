// SPDX-License-Identifier: Apache-2.0
// VersionedStore: restore and drop.
#include <set>
#include <utility>

#include "guard.h"
#include "state_reader.h"
#include "text.h"
#include "versioned_store.h"

namespace perennial::storage {

// Writes a commit that holds nothing but its record.
Result<CommitInfo> VersionedStore::publish_record(Record record, State next, FullTable table) {
  const MutexLock lock(history_);
  DensePlan plan;
  plan.table = record.dense;
  table.most_pages = next.table.size();
  if (Status status = begin({}, plan, record, table); !status.ok()) return status;
  Guard abandon([&] { backend_->abandon(); });
  if (table.wanted) add_full_table(next, record);
  Result<CommitInfo> info = finish(std::move(record), std::move(next));
  if (info.ok()) abandon.dismiss();
  return info;
}

Result<CommitInfo> VersionedStore::restore(const RestoreRequest& request) {
  if (Status status = ready(); !status.ok()) return status;
  const StatePtr before = state();
  if (!before->catalog.contains(request.commit)) {
    return resolve_in(*before, std::to_string(request.commit)).status();
  }
  if (Status status = check_snapshot(request.snapshot, request.note); !status.ok()) return status;
  Result<StatePtr> old = load_state(*backend_, request.commit);
  if (!old.ok()) return old.status();

  Record record = next_record(request.snapshot, request.note);
  record.info.parent = request.commit;
  record.dense = (*old)->table.dense();
  if (request.drop_later) {
    std::set<std::uint64_t> later;
    for (auto at = before->catalog.upper_bound(request.commit); at != before->catalog.end(); ++at) {
      later.insert(at->first);
    }
    if (Status status = check_drop(later); !status.ok()) return status;
    record.dropped.assign(later.begin(), later.end());
  }
  apply_retention(record);
  State next = next_state(*before, record);
  next.table = (*old)->table;
  return publish_record(std::move(record), std::move(next), {.wanted = true, .needed = true});
}

Status VersionedStore::check_drop(const std::set<std::uint64_t>& commits) const {
  for (const Backend::Lease& lease : backend_->leases()) {
    if (commits.contains(lease.commit)) {
      return error(StatusCode::busy, "commit ", lease.commit, " is being read by ", lease.reader);
    }
  }
  const MutexLock lock(pins_->mutex);
  for (const std::uint64_t commit : commits) {
    if (pins_->commits.contains(commit)) {
      return error(StatusCode::busy, "commit ", commit, " is being read by this process");
    }
  }
  return {};
}

Result<CommitInfo> VersionedStore::drop(const std::vector<std::uint64_t>& commits,
                                        const std::string& note) {
  if (Status status = ready(); !status.ok()) return status;
  const StatePtr before = state();
  const std::set<std::uint64_t> gone(commits.begin(), commits.end());
  if (gone.empty()) return error(StatusCode::invalid_argument, "no commit to drop was given");
  for (const std::uint64_t commit : gone) {
    if (!before->catalog.contains(commit)) {
      return resolve_in(*before, std::to_string(commit)).status();
    }
    if (commit == before->info.commit) {
      return error(StatusCode::invalid_argument, "commit ", commit,
                   " is the current one; restore another one first");
    }
  }
  if (Status status = check_snapshot("", note); !status.ok()) return status;
  if (Status status = check_drop(gone); !status.ok()) return status;
  Record record = next_record("", note);
  record.dropped.assign(gone.begin(), gone.end());
  apply_retention(record);
  State next = next_state(*before, record);
  const FullTable table{.wanted = wants_full_table(record)};
  return publish_record(std::move(record), std::move(next), table);
}

}  // namespace perennial::storage
