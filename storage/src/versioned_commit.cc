// SPDX-License-Identifier: Apache-2.0
// VersionedStore: commit.
#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <exception>
#include <optional>
#include <random>
#include <utility>

#include "guard.h"
#include "keys.h"
#include "page_codec.h"
#include "room.h"
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

StoreIdentity new_identity() {
  StoreIdentity identity;
  std::random_device device;
  for (std::uint8_t& byte : identity.origin.bytes) byte = static_cast<std::uint8_t>(device());
  return identity;
}

bool is_name_character(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

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
  if (const std::uint64_t found = find_snapshot(state()->catalog, name); found != 0) {
    return error(StatusCode::invalid_argument, "snapshot '", name, "' exists already (commit ",
                 found, ")");
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
  for (const auto& [name, payload] : request.dense) {
    if (name.empty() || name.size() > kMaxDenseName) {
      return error(StatusCode::invalid_argument, "dense name of ", name.size(),
                   " bytes; 1 to 255 are allowed");
    }
    if (!payload.has_function()) {
      return error(StatusCode::invalid_argument, "dense entry '", name,
                   "' has no payload function");
    }
  }
  for (const std::string& name : request.removed_dense) {
    if (request.dense.contains(name)) {
      return error(StatusCode::invalid_argument, "dense entry '", name,
                   "' is both written and removed");
    }
  }
  if (request.identity && state()->info.commit != 0) {
    return error(StatusCode::invalid_argument,
                 "only an empty store can take over an identity; this one has commit ",
                 state()->info.commit);
  }
  return check_snapshot(request.snapshot, request.note);
}

// Generous: keys, headers and block overhead come to less than 256 bytes a page.
std::uint64_t VersionedStore::estimate(const CommitRequest& request, const DensePlan& plan,
                                       const Record& record, FullTable table) const {
  std::uint64_t bytes = kTableBytes + kKeyBytes + record.info.note.size() + plan.new_bytes;
  if (!request.pages.empty() || !plan.new_chunks.empty()) bytes += kSpareBytes;
  for (const PageWrite& page : request.pages) bytes += page.shape.payload_bytes() + kKeyBytes;
  bytes += kKeyBytes * plan.new_chunks.size();
  bytes += 16 * request.removed_pages.size() + 8 * record.dropped.size();
  for (const auto& [name, entry] : plan.table) {
    bytes += name.size() + 20 + 24 * entry.chunks.size();
  }
  if (table.wanted) {
    bytes += 64 * table.most_pages;
    for (const auto& [commit, kept] : state()->catalog) bytes += kept.snapshot.size() + 24;
  }
  return bytes;
}

// Opening then reads more records back.
Status VersionedStore::begin(const CommitRequest& request, const DensePlan& plan,
                             const Record& record, FullTable& table) {
  const auto attempt = [&] {
    return backend_->begin(record.info.commit, estimate(request, plan, record, table));
  };
  Status status = attempt();
  if (!table.wanted || table.needed || status.code() != StatusCode::no_space) return status;
  table.wanted = false;
  return attempt();
}

// Whole, or as a delta where the caller says which experts changed and that pays.
Status VersionedStore::write_pages(const CommitRequest& request, Record& record) {
  const StatePtr before = state();
  record.pages.reserve(request.pages.size());
  for (const PageWrite& page : request.pages) {
    Result<std::span<const std::byte>> payload = page.payload();
    if (!payload.ok()) return payload.status();
    if (payload->size() != page.shape.payload_bytes()) {
      return error(StatusCode::invalid_argument, to_string(page.id), ": expected ",
                   page.shape.payload_bytes(), " bytes, the payload function gave ",
                   payload->size());
    }
    PageEntry entry{page.shape, digest_of(*payload), record.info.commit, 0, 0};
    std::span<const std::byte> body = *payload;
    Digest body_digest = entry.digest;
    Bytes delta;
    if (const PageEntry* old = before->table.find(page.id);
        old != nullptr && page.changed != 0 && old->shape == page.shape &&
        delta_pays(page.changed | old->changed, page.shape)) {
      entry.base = old->is_delta() ? old->base : old->commit;
      entry.changed = page.changed | old->changed;
      delta = encode_delta(entry, *payload);
      body = delta;
      body_digest = digest_of(delta);
    }
    const PageHeader header = encode_page_header(page.id, entry, body_digest);
    if (Status status = backend_->put(page_key(entry.commit, page.id), header, body);
        !status.ok()) {
      return status;
    }
    record.info.bytes_written += body.size();
    record.pages.push_back({page.id, entry});
  }
  return {};
}

Record VersionedStore::next_record(const std::string& snapshot, const std::string& note) const {
  const StatePtr before = state();
  Record record;
  record.info.commit = before->info.commit + 1;
  record.info.parent = before->info.commit;
  record.info.snapshot = snapshot;
  record.info.note = note;
  record.info.unix_ms = unix_ms_now();
  record.identity = before->info.commit == 0 ? new_identity() : before->identity;
  record.retention = before->retention;
  record.dense = before->table.dense();
  return record;
}

void VersionedStore::apply_retention(Record& record) const {
  Catalog catalog = state()->catalog;
  for (const std::uint64_t commit : record.dropped) catalog.erase(commit);
  catalog[record.info.commit] = {record.info.unix_ms, record.info.snapshot};
  const std::vector<std::uint64_t> gone = not_retained(catalog, record.retention, pinned());
  record.dropped.insert(record.dropped.end(), gone.begin(), gone.end());
  std::ranges::sort(record.dropped);
}

bool VersionedStore::wants_full_table(const Record& record) const {
  const std::uint64_t last = state()->full_commit;
  return last == 0 || record.info.commit - last >= options_.full_table_every;
}

void VersionedStore::add_full_table(const State& state, Record& record) {
  record.full = true;
  record.table.reserve(state.table.size());
  state.table.for_each([&](const PageId& id, const PageEntry& entry) {
    record.table.push_back({id, entry});
  });
  record.catalog = state.catalog;
}

Result<CommitInfo> VersionedStore::finish(Record record, State next) {
  next.info.pages_listed = record.info.pages_listed = next.table.size();
  next.info.state_digest = record.info.state_digest = next.table.digest();
  next.info.pages_written = record.pages.size();
  next.info.pages_removed = record.removed.size();
  const Bytes bytes = encode_record(record);
  if (Status status = backend_->put(record_key(record.info.commit), {}, bytes); !status.ok()) {
    return status;
  }
  if (Status status = backend_->publish(); !status.ok()) return status;
  next.info.file_bytes = backend_->file_of(record.info.commit).bytes;
  next.info.live_bytes = next.info.bytes_written;
  if (record.full) next.full_commit = record.info.commit;
  const CommitInfo info = next.info;
  set_state(std::make_shared<const State>(std::move(next)));
  {
    const MutexLock lock(counters_mutex_);
    written_.commits += 1;
    written_.pages_written += info.pages_written;
    written_.bytes_written += info.bytes_written;
    for (const ListedPage& page : record.pages) written_.delta_pages += page.entry.is_delta();
  }
  reclaim_soon();
  return info;
}

Result<CommitInfo> VersionedStore::build_and_publish(const CommitRequest& request) {
  const MutexLock lock(history_);
  Result<DensePlan> planned = plan_dense(request, *state());
  if (!planned.ok()) return planned.status();
  DensePlan& plan = *planned;
  Record record = next_record(request.snapshot, request.note);
  record.info.bytes_written = plan.new_bytes;
  if (request.identity) record.identity = *request.identity;
  if (request.retention) record.retention = *request.retention;
  apply_retention(record);
  FullTable table;
  table.wanted = wants_full_table(record);
  table.most_pages = state()->table.size() + request.pages.size();
  if (Status status = begin(request, plan, record, table); !status.ok()) return status;
  Guard abandon([&] { backend_->abandon(); });
  if (Status status = write_chunks(*backend_, plan, record.info.commit); !status.ok())
    return status;
  if (Status status = write_pages(request, record); !status.ok()) return status;
  const StatePtr before = state();
  for (const PageId& id : request.removed_pages) {
    if (before->table.find(id) != nullptr) record.removed.push_back(id);
  }
  record.dense = std::move(plan.table);
  State next = next_state(*before, record);
  if (table.wanted) add_full_table(next, record);
  Result<CommitInfo> info = finish(std::move(record), std::move(next));
  if (info.ok()) abandon.dismiss();
  return info;
}

Result<CommitInfo> VersionedStore::commit(const CommitRequest& request) {
  if (Status status = ready(); !status.ok()) return status;
  if (Status status = check_request(request); !status.ok()) return status;
  return build_and_publish(request);
}

std::future<Result<CommitInfo>> VersionedStore::commit_async(CommitRequest request) {
  auto promise = std::make_shared<std::promise<Result<CommitInfo>>>();
  std::future<Result<CommitInfo>> future = promise->get_future();
  Status status = ready();
  if (status.ok()) status = check_request(request);
  if (!status.ok()) {
    promise->set_value(std::move(status));
    return future;
  }
  auto flight = std::make_shared<std::promise<void>>();
  flight_ = flight->get_future().share();
  boost::asio::post(*commit_thread_, [this, promise, flight,
                                      owned = std::make_shared<CommitRequest>(std::move(request))] {
    std::optional<Result<CommitInfo>> result;
    std::exception_ptr thrown;
    try {
      result = build_and_publish(*owned);
    } catch (...) {
      thrown = std::current_exception();
    }
    *owned = {};  // before anybody hears of the end
    flight->set_value();
    if (result) {
      promise->set_value(std::move(*result));
    } else {
      promise->set_exception(thrown);
    }
  });
  return future;
}

}  // namespace perennial::storage
