// SPDX-License-Identifier: Apache-2.0
// VersionedStore: commit and restore.
#include <algorithm>
#include <chrono>
#include <utility>

#include "keys.h"
#include "page_codec.h"
#include "text.h"
#include "versioned_store.h"

namespace perennial::storage {
namespace {

constexpr std::size_t kMaxDenseName = 255;
constexpr std::size_t kMaxSnapshotName = 128;
constexpr std::size_t kMaxNote = std::size_t{64} << 20;

std::int64_t unix_ms_now() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

bool is_name_character(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

// Runs its action unless dismissed: takes a half-made commit back, also when a caller's payload
// function throws.
template <class Action>
class Guard {
 public:
  explicit Guard(Action action) : action_(std::move(action)) {}
  ~Guard() {
    if (armed_) action_();
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  void dismiss() { armed_ = false; }

 private:
  Action action_;
  bool armed_ = true;
};

}  // namespace

Status VersionedStore::check_snapshot(const std::string& name, const std::string& note) const {
  if (note.size() > kMaxNote) {
    return error(StatusCode::invalid_argument, "note of ", note.size(), " bytes; at most ",
                 kMaxNote);
  }
  if (name.empty()) return {};
  if (name.size() > kMaxSnapshotName || !std::ranges::all_of(name, is_name_character)) {
    return error(StatusCode::invalid_argument, "snapshot name '", name,
                 "'; 1 to 128 characters of [A-Za-z0-9._-]");
  }
  if (std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; })) {
    return error(StatusCode::invalid_argument, "snapshot name '", name,
                 "' would read as a commit number");
  }
  if (const auto found = snapshots_.find(name); found != snapshots_.end()) {
    return error(StatusCode::invalid_argument, "snapshot '", name, "' exists already (commit ",
                 found->second, ")");
  }
  return {};
}

Status VersionedStore::check_request(const CommitRequest& request) const {
  const PageWrite* before = nullptr;
  for (const PageWrite& page : request.pages) {
    if (page.id.kind != PageKind::weights && page.id.kind != PageKind::state) {
      return error(StatusCode::invalid_argument, "unknown page kind ", int(page.id.kind));
    }
    if (before != nullptr && !(before->id < page.id)) {
      return error(StatusCode::invalid_argument,
                   "pages are not strictly ascending: ", to_string(page.id), " after ",
                   to_string(before->id));
    }
    if (Status status = check_shape(page.shape); !status.ok()) {
      return error(status.code(), to_string(page.id), ": ", status.message());
    }
    if (!page.payload) {
      return error(StatusCode::invalid_argument, to_string(page.id), " has no payload function");
    }
    before = &page;
  }
  for (const PageId& id : request.removed_pages) {
    if (std::ranges::binary_search(request.pages, id, {}, &PageWrite::id)) {
      return error(StatusCode::invalid_argument, to_string(id), " is both written and removed");
    }
  }
  for (const auto& [name, bytes] : request.dense) {
    if (name.empty() || name.size() > kMaxDenseName) {
      return error(StatusCode::invalid_argument, "dense name of ", name.size(),
                   " bytes; 1 to 255 are allowed");
    }
  }
  for (const std::string& name : request.removed_dense) {
    if (request.dense.contains(name)) {
      return error(StatusCode::invalid_argument, "dense entry '", name,
                   "' is both written and removed");
    }
  }
  return check_snapshot(request.snapshot, request.note);
}

VersionedStore::DensePlan VersionedStore::plan_dense(const CommitRequest& request) const {
  std::map<Digest, std::uint64_t> known;  // chunks of the current state
  for (const auto& [name, entry] : state_.dense()) {
    for (const ChunkRef& chunk : entry.chunks) known.emplace(chunk.digest, chunk.commit);
  }
  DensePlan plan;
  plan.table = state_.dense();
  for (const std::string& name : request.removed_dense) plan.table.erase(name);
  for (const auto& [name, bytes] : request.dense) {
    DenseEntry entry;
    entry.size = bytes.size();
    for (std::size_t at = 0; at < bytes.size(); at += kChunkBytes) {
      const auto chunk = std::span(bytes).subspan(at, std::min(kChunkBytes, bytes.size() - at));
      const Digest digest = digest_of(chunk);
      const auto [place, is_new] = known.emplace(digest, head_.commit + 1);
      if (is_new) {
        plan.new_chunks.emplace(digest, chunk);
        plan.new_bytes += chunk.size();
      }
      entry.chunks.push_back({digest, place->second});
    }
    plan.table[name] = std::move(entry);
  }
  return plan;
}

// Generous: keys, headers and block overhead come to less than 256 bytes a page.
std::uint64_t VersionedStore::estimate(const CommitRequest& request, const DensePlan& plan,
                                       bool full) const {
  std::uint64_t bytes = (1 << 20) + request.note.size() + plan.new_bytes;
  for (const PageWrite& page : request.pages) bytes += page.shape.payload_bytes() + 256;
  bytes += 32 * request.removed_pages.size();
  for (const auto& [name, entry] : plan.table) bytes += 512 + 32 * entry.chunks.size();
  if (full) bytes += 64 * (state_.size() + request.pages.size()) + 256 * snapshots_.size();
  return bytes;
}

Status VersionedStore::write_chunks(const DensePlan& plan, std::uint64_t commit) {
  for (const auto& [digest, bytes] : plan.new_chunks) {
    if (Status status = backend_->put(chunk_key(commit, digest), {}, bytes); !status.ok()) {
      return status;
    }
  }
  return {};
}

Status VersionedStore::write_pages(const CommitRequest& request, Record& record) {
  const std::uint64_t commit = record.info.commit;
  record.pages.reserve(request.pages.size());
  for (const PageWrite& page : request.pages) {
    Result<std::span<const std::byte>> payload = page.payload();
    if (!payload.ok()) return payload.status();
    if (payload->size() != page.shape.payload_bytes()) {
      return error(StatusCode::invalid_argument, to_string(page.id), ": expected ",
                   page.shape.payload_bytes(), " bytes, the payload function gave ",
                   payload->size());
    }
    const PageHeader header = encode_page_header(page.id, page.shape, commit, *payload);
    if (Status status = backend_->put(page_key(commit, page.id), header, *payload); !status.ok()) {
      return status;
    }
    record.pages.push_back({page.id, {page.shape, digest_of(*payload), commit}});
    record.info.bytes_written += payload->size();
  }
  return {};
}

void VersionedStore::add_full_table(Record& record) const {
  record.full = true;
  record.table.reserve(state_.size());
  state_.for_each([&](const PageId& id, const PageEntry& entry) {
    record.table.push_back({id, entry});
  });
  record.snapshots = snapshots_;
  if (!record.info.snapshot.empty()) {
    record.snapshots.emplace(record.info.snapshot, record.info.commit);
  }
}

Status VersionedStore::write_record(const Record& record) {
  const Bytes bytes = encode_record(record);
  return backend_->put(record_key(record.info.commit), {}, bytes);
}

void VersionedStore::adopt(const Record& record) {
  head_ = record.info;
  head_.pages_written = record.pages.size();
  head_.pages_removed = record.removed.size();
  head_.file_bytes = backend_->file_bytes(head_.commit);
  head_.live_bytes = head_.bytes_written;
  if (record.full) last_full_ = head_.commit;
  if (!head_.snapshot.empty()) snapshots_.emplace(head_.snapshot, head_.commit);
  written_.commits += 1;
  written_.pages_written += head_.pages_written;
  written_.bytes_written += head_.bytes_written;
}

Result<CommitInfo> VersionedStore::commit(const CommitRequest& request) {
  if (Status status = ensure_open(); !status.ok()) return status;
  if (Status status = check_request(request); !status.ok()) return status;
  DensePlan plan = plan_dense(request);
  Record record;
  record.info.commit = head_.commit + 1;
  record.info.parent = head_.commit;
  record.info.snapshot = request.snapshot;
  record.info.note = request.note;
  record.info.unix_ms = unix_ms_now();
  record.info.bytes_written = plan.new_bytes;
  const bool full = last_full_ == 0 || record.info.commit - last_full_ >= full_table_every_;

  if (Status status = backend_->begin(record.info.commit, estimate(request, plan, full));
      !status.ok()) {
    return status;
  }
  StateTable::Undo undo;
  DenseTable dense_before;
  bool applied = false;
  Guard take_back([&] {
    backend_->abandon();
    state_.revert(undo);
    if (applied) state_.dense() = std::move(dense_before);
  });
  if (Status status = write_chunks(plan, record.info.commit); !status.ok()) return status;
  if (Status status = write_pages(request, record); !status.ok()) return status;

  for (const PageId& id : request.removed_pages) {
    if (state_.erase(id, &undo)) record.removed.push_back(id);
  }
  for (const ListedPage& page : record.pages) state_.set(page.id, page.entry, &undo);
  record.dense = std::move(plan.table);
  dense_before = std::exchange(state_.dense(), record.dense);
  applied = true;
  record.info.pages_listed = state_.size();
  record.info.state_digest = state_.digest();
  if (full) add_full_table(record);
  if (Status status = write_record(record); !status.ok()) return status;
  if (Status status = backend_->publish(); !status.ok()) return status;
  take_back.dismiss();
  adopt(record);
  return head_;
}

Result<CommitInfo> VersionedStore::restore(std::uint64_t commit, const std::string& snapshot,
                                           const std::string& note) {
  if (Status status = ensure_open(); !status.ok()) return status;
  if (commit == 0 || commit > head_.commit) {
    return error(StatusCode::not_found, "no commit ", commit, "; the last one is ", head_.commit);
  }
  if (Status status = check_snapshot(snapshot, note); !status.ok()) return status;
  Result<Loaded> loaded = load_commit(commit);
  if (!loaded.ok()) return loaded.status();
  Record record;
  record.info.commit = head_.commit + 1;
  record.info.parent = commit;
  record.info.snapshot = snapshot;
  record.info.note = note;
  record.info.unix_ms = unix_ms_now();
  record.info.pages_listed = loaded->state.size();
  record.info.state_digest = loaded->info.state_digest;
  record.dense = loaded->state.dense();

  std::swap(state_, loaded->state);
  Guard take_back([&] {
    backend_->abandon();
    std::swap(state_, loaded->state);
  });
  add_full_table(record);
  CommitRequest nothing;
  nothing.note = note;
  DensePlan plan;
  plan.table = record.dense;
  if (Status status = backend_->begin(record.info.commit, estimate(nothing, plan, true));
      !status.ok()) {
    return status;
  }
  if (Status status = write_record(record); !status.ok()) return status;
  if (Status status = backend_->publish(); !status.ok()) return status;
  take_back.dismiss();
  adopt(record);
  return head_;
}

}  // namespace perennial::storage
