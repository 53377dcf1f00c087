// SPDX-License-Identifier: Apache-2.0
// VersionedStore: loading a state, reading it, and its history.
#include "versioned_store.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>

#include "keys.h"
#include "page_codec.h"
#include "text.h"

namespace perennial::storage {

VersionedStore::VersionedStore(std::unique_ptr<Backend> backend, std::uint32_t full_table_every)
    : backend_(std::move(backend)), full_table_every_(full_table_every) {}

std::string VersionedStore::where(std::uint64_t commit) const {
  return text_of("commit ", commit, ", ", backend_->file_of(commit));
}

Result<Record> VersionedStore::read_record(std::uint64_t commit) const {
  std::optional<Record> record;
  Status status = backend_->get(record_key(commit), [&](std::span<const std::byte> value) {
    Result<Record> decoded = decode_record(value, commit);
    if (!decoded.ok()) return decoded.status();
    record = std::move(*decoded);
    return Status();
  });
  if (!status.ok()) {
    // A record that last_commit() promises is never merely absent.
    const StatusCode code =
        status.code() == StatusCode::not_found ? StatusCode::corruption : status.code();
    return error(code, status.message(), " (record of ", where(commit), ")");
  }
  record->info.file_bytes = backend_->file_bytes(commit);
  return std::move(*record);
}

Result<VersionedStore::Loaded> VersionedStore::load_commit(std::uint64_t commit) const {
  std::vector<Record> records;  // newest first, down to one with a full table
  for (std::uint64_t at = commit; records.empty() || !records.back().full; --at) {
    if (at == 0) {
      return error(StatusCode::corruption, "no full page table at or before ", where(commit));
    }
    Result<Record> record = read_record(at);
    if (!record.ok()) return record.status();
    records.push_back(std::move(*record));
  }
  Loaded loaded;
  loaded.info = records.front().info;
  loaded.full_commit = records.back().info.commit;
  loaded.snapshots = records.back().snapshots;
  for (const ListedPage& page : records.back().table) loaded.state.set(page.id, page.entry);
  for (auto record = records.rbegin(); record != records.rend(); ++record) {
    if (!record->full) {
      for (const PageId& id : record->removed) loaded.state.erase(id);
      for (const ListedPage& page : record->pages) loaded.state.set(page.id, page.entry);
    }
    if (!record->info.snapshot.empty()) {
      loaded.snapshots.emplace(record->info.snapshot, record->info.commit);
    }
  }
  loaded.state.dense() = std::move(records.front().dense);
  if (loaded.state.size() != loaded.info.pages_listed ||
      loaded.state.digest() != loaded.info.state_digest) {
    return error(StatusCode::corruption, "the page table does not have the recorded state digest ",
                 loaded.info.state_digest.hex(), " (", where(commit), ")");
  }
  return loaded;
}

Status VersionedStore::load() {
  const std::uint64_t last = backend_->last_commit();
  Loaded loaded;
  if (last > 0) {
    Result<Loaded> result = load_commit(last);
    if (!result.ok()) return result.status();
    loaded = std::move(*result);
  }
  state_ = std::move(loaded.state);
  snapshots_ = std::move(loaded.snapshots);
  head_ = loaded.info;
  head_.live_bytes = head_.bytes_written;
  last_full_ = loaded.full_commit;
  return {};
}

Status VersionedStore::ensure_open() {
  if (!backend_->closed()) return {};
  if (Status status = backend_->reopen(); !status.ok()) return status;
  return load();
}

bool VersionedStore::contains(const PageId& id) const { return state_.find(id) != nullptr; }

Result<PageShape> VersionedStore::page_shape(const PageId& id) const {
  const PageEntry* entry = state_.find(id);
  if (entry == nullptr) return error(StatusCode::not_found, to_string(id));
  return entry->shape;
}

Result<Digest> VersionedStore::page_digest(const PageId& id) const {
  const PageEntry* entry = state_.find(id);
  if (entry == nullptr) return error(StatusCode::not_found, to_string(id));
  return entry->digest;
}

Status VersionedStore::read_page(const PageId& id, std::span<std::byte> payload) const {
  const PageEntry* entry = state_.find(id);
  if (entry == nullptr) return error(StatusCode::not_found, to_string(id));
  if (payload.size() != entry->shape.payload_bytes()) {
    return error(StatusCode::invalid_argument, to_string(id), " has ", entry->shape.payload_bytes(),
                 " bytes, the buffer ", payload.size());
  }
  Status status = backend_->get(page_key(entry->commit, id), [&](std::span<const std::byte> value) {
    Status check = check_page_value(value, id, entry->shape, entry->commit, entry->digest);
    if (check.ok()) {
      std::memcpy(payload.data(), value.data() + kPageHeaderBytes, payload.size());
    }
    return check;
  });
  if (!status.ok()) {
    const StatusCode code =
        status.code() == StatusCode::not_found ? StatusCode::corruption : status.code();
    return error(code, to_string(id), " (", where(entry->commit), "): ", status.message());
  }
  pages_read_.fetch_add(1, std::memory_order_relaxed);
  bytes_read_.fetch_add(payload.size(), std::memory_order_relaxed);
  return {};
}

std::vector<PageId> VersionedStore::pages() const {
  std::vector<PageId> ids;
  ids.reserve(state_.size());
  state_.for_each([&](const PageId& id, const PageEntry&) { ids.push_back(id); });
  return ids;
}

Result<Bytes> VersionedStore::read_dense(const std::string& name) const {
  const auto found = state_.dense().find(name);
  if (found == state_.dense().end()) {
    return error(StatusCode::not_found, "dense entry '", name, "'");
  }
  const DenseEntry& entry = found->second;
  Bytes bytes;
  // Not entry.size at once: the chunks that are really there bound what is allocated.
  for (std::size_t i = 0; i < entry.chunks.size(); ++i) {
    const ChunkRef& chunk = entry.chunks[i];
    Status status =
        backend_->get(chunk_key(chunk.commit, chunk.digest), [&](std::span<const std::byte> value) {
          if (value.size() != entry.chunk_bytes(i) || digest_of(value) != chunk.digest) {
            return error(StatusCode::corruption, "expected ", entry.chunk_bytes(i),
                         " bytes of digest ", chunk.digest.hex(), ", found ", value.size(),
                         " of digest ", digest_of(value).hex());
          }
          bytes.insert(bytes.end(), value.begin(), value.end());
          return Status();
        });
    if (!status.ok()) {
      const StatusCode code =
          status.code() == StatusCode::not_found ? StatusCode::corruption : status.code();
      return error(code, "dense entry '", name, "' chunk ", i, " (", where(chunk.commit),
                   "): ", status.message());
    }
  }
  bytes_read_.fetch_add(bytes.size(), std::memory_order_relaxed);
  return bytes;
}

std::vector<std::string> VersionedStore::dense_names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : state_.dense()) names.push_back(name);
  return names;
}

Result<CommitInfo> VersionedStore::head() const {
  if (head_.commit == 0) return error(StatusCode::not_found, "the store has no commit yet");
  return head_;
}

std::vector<CommitInfo> VersionedStore::log() const {
  std::map<std::uint64_t, std::uint64_t> live;
  state_.for_each([&](const PageId&, const PageEntry& entry) {
    live[entry.commit] += entry.shape.payload_bytes();
  });
  std::set<Digest> counted;
  for (const auto& [name, entry] : state_.dense()) {
    for (std::size_t i = 0; i < entry.chunks.size(); ++i) {
      if (counted.insert(entry.chunks[i].digest).second) {
        live[entry.chunks[i].commit] += entry.chunk_bytes(i);
      }
    }
  }
  std::vector<CommitInfo> infos;
  for (std::uint64_t commit = 1; commit <= head_.commit; ++commit) {
    Result<Record> record = read_record(commit);
    CommitInfo info;
    if (record.ok()) {
      info = record->info;
    } else {
      info.commit = commit;
      info.note = record.status().to_string();
    }
    info.live_bytes = live[commit];
    infos.push_back(std::move(info));
  }
  return infos;
}

Result<std::uint64_t> VersionedStore::resolve(const std::string& name) const {
  if (const auto found = snapshots_.find(name); found != snapshots_.end()) return found->second;
  std::uint64_t commit = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data(), end, commit);
  if (parsed.ec == std::errc() && parsed.ptr == end && commit >= 1 && commit <= head_.commit) {
    return commit;
  }
  return error(StatusCode::not_found, "no snapshot or commit '", name, "'");
}

StoreCounters VersionedStore::counters() const {
  StoreCounters counters = written_;
  counters.pages_read = pages_read_.load(std::memory_order_relaxed);
  counters.bytes_read = bytes_read_.load(std::memory_order_relaxed);
  counters.reopens = backend_->reopens();
  return counters;
}

std::filesystem::path VersionedStore::scratch_folder() const { return backend_->scratch_folder(); }

Result<std::uint64_t> VersionedStore::size_bytes() const { return backend_->size_bytes(); }

}  // namespace perennial::storage
