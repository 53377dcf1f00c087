// SPDX-License-Identifier: Apache-2.0
// Reading pages, dense entries and history of a state.
#include "state_reader.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <utility>

#include "keys.h"
#include "page_codec.h"
#include "text.h"

namespace perennial::storage {
namespace {

// What is listed and not there is damage.
Status as_damage(const Status& status, const std::string& what) {
  const StatusCode code =
      status.code() == StatusCode::not_found ? StatusCode::corruption : status.code();
  return error(code, what, ": ", status.message());
}

// One stored value, checked by its header; `use(body, digest)`.
template <class Use>
Status read_body(const Backend& backend, const PageId& id, const PageEntry& entry, Use&& use) {
  const std::size_t value_bytes = kPageHeaderBytes + stored_bytes(entry);
  return backend.get_known(
      page_key(entry.commit, id), value_bytes, [&](std::span<const std::byte> value) {
        Digest digest;
        const Result<std::span<const std::byte>> body = check_page_value(value, id, entry, digest);
        return body.ok() ? use(*body, digest) : body.status();
      });
}

PageEntry base_of(const PageEntry& delta) {
  PageEntry base;
  base.shape = delta.shape;
  base.commit = delta.base;
  return base;
}

Status expect_digest(const Digest& found, const Digest& expected) {
  if (found == expected) return {};
  return error(StatusCode::corruption, "expected payload digest ", expected.hex(), ", found ",
               found.hex());
}

}  // namespace

Status read_page_version(const Backend& backend, const PageId& id, const PageEntry& entry,
                         std::span<std::byte> payload) {
  if (!entry.is_delta()) {
    return read_body(backend, id, entry, [&](auto body, const Digest& digest) {
      Status status = expect_digest(digest, entry.digest);
      if (status.ok()) std::ranges::copy(body, payload.begin());
      return status;
    });
  }
  Status status = read_body(backend, id, base_of(entry), [&](auto body, const Digest&) {
    std::ranges::copy(body, payload.begin());
    return Status();
  });
  if (!status.ok()) return as_damage(status, "base in " + where(backend, entry.base));
  status = read_body(backend, id, entry, [&](auto body, const Digest&) {
    apply_delta(entry, body, payload);
    return Status();
  });
  return status.ok() ? expect_digest(digest_of(payload), entry.digest) : status;
}

Status read_page(const Backend& backend, const State& state, const PageId& id,
                 std::span<std::byte> payload) {
  const PageEntry* entry = state.table.find(id);
  if (entry == nullptr) return error(StatusCode::not_found, to_string(id));
  if (payload.size() != entry->shape.payload_bytes()) {
    return error(StatusCode::invalid_argument, to_string(id), " has ", entry->shape.payload_bytes(),
                 " bytes, the buffer ", payload.size());
  }
  Status status = read_page_version(backend, id, *entry, payload);
  if (status.ok()) return status;
  return as_damage(status, text_of(to_string(id), " (", where(backend, entry->commit), ")"));
}

Status check_chunk(std::span<const std::byte> value, std::size_t size, const Digest& digest) {
  if (value.size() == size && digest_of(value) == digest) return {};
  return error(StatusCode::corruption, "expected ", size, " bytes of digest ", digest.hex(),
               ", found ", value.size(), " of digest ", digest_of(value).hex());
}

Result<const DenseEntry*> find_dense(const State& state, const std::string& name) {
  const auto found = state.table.dense().find(name);
  if (found == state.table.dense().end()) {
    return error(StatusCode::not_found, "dense entry '", name, "'");
  }
  return &found->second;
}

Result<Bytes> read_dense(const Backend& backend, const State& state, const std::string& name) {
  const Result<const DenseEntry*> found = find_dense(state, name);
  if (!found.ok()) return found.status();
  const DenseEntry& entry = **found;
  Bytes bytes;
  // Not entry.size at once: the chunks that are really there bound what is allocated.
  for (std::size_t i = 0; i < entry.chunks.size(); ++i) {
    const ChunkRef& chunk = entry.chunks[i];
    Status status = backend.get_known(chunk_key(chunk.commit, chunk.digest), entry.chunk_bytes(i),
                                      [&](std::span<const std::byte> value) {
                                        Status check =
                                            check_chunk(value, entry.chunk_bytes(i), chunk.digest);
                                        if (check.ok())
                                          bytes.insert(bytes.end(), value.begin(), value.end());
                                        return check;
                                      });
    if (!status.ok()) {
      return as_damage(status, text_of("dense entry '", name, "' chunk ", i, " (",
                                       where(backend, chunk.commit), ")"));
    }
  }
  return bytes;
}

Digest digest_of(const DenseEntry& entry) {
  Hasher hasher;
  hasher.update(entry.size);
  for (const ChunkRef& chunk : entry.chunks) hasher.update(chunk.digest);
  return hasher.finish();
}

std::vector<PageId> pages_of(const State& state) {
  std::vector<PageId> ids;
  ids.reserve(state.table.size());
  state.table.for_each([&](const PageId& id, const PageEntry&) { ids.push_back(id); });
  return ids;
}

std::vector<CommitInfo> log_of(const Backend& backend, const State& state, const Catalog& catalog) {
  std::map<std::uint64_t, std::uint64_t> live;
  state.table.for_each([&](const PageId&, const PageEntry& entry) {
    live[entry.commit] += stored_bytes(entry);
    if (entry.is_delta()) live[entry.base] += entry.shape.payload_bytes();
  });
  std::set<Digest> counted;
  for (const auto& [name, entry] : state.table.dense()) {
    for (std::size_t i = 0; i < entry.chunks.size(); ++i) {
      if (counted.insert(entry.chunks[i].digest).second) {
        live[entry.chunks[i].commit] += entry.chunk_bytes(i);
      }
    }
  }
  std::vector<CommitInfo> infos;
  for (const auto& [commit, entry] : catalog) {
    Result<Record> record = read_record(backend, commit);
    CommitInfo info;
    if (record.ok()) {
      info = record->info;
    } else {
      info.commit = commit;
      info.note = record.status().to_string();
    }
    info.snapshot = entry.snapshot;
    info.live_bytes = live[commit];
    infos.push_back(std::move(info));
  }
  return infos;
}

Result<std::uint64_t> resolve_in(const State& state, const std::string& name) {
  if (!name.empty()) {
    if (const std::uint64_t found = find_snapshot(state.catalog, name); found != 0) return found;
  }
  std::uint64_t commit = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data(), end, commit);
  if (parsed.ec == std::errc() && parsed.ptr == end) {
    if (state.catalog.contains(commit)) return commit;
    if (commit >= 1 && commit < state.info.commit) {
      return error(StatusCode::not_found, "commit ", commit, " was dropped");
    }
  }
  return error(StatusCode::not_found, "no snapshot or commit '", name, "'");
}

StateReader::StateReader(const Backend& backend, StatePtr state, Store store)
    : backend_(backend), state_(std::move(state)), store_(std::move(store)) {}

StateReader::~StateReader() { store_.on_close(); }

bool StateReader::contains(const PageId& id) const { return state_->table.find(id) != nullptr; }

Result<PageShape> StateReader::page_shape(const PageId& id) const {
  const PageEntry* entry = state_->table.find(id);
  if (entry == nullptr) return error(StatusCode::not_found, to_string(id));
  return entry->shape;
}

Status StateReader::read_page(const PageId& id, std::span<std::byte> payload) const {
  return storage::read_page(backend_, *state_, id, payload);
}

std::vector<PageId> StateReader::pages() const { return pages_of(*state_); }

Result<Digest> StateReader::page_digest(const PageId& id) const {
  const PageEntry* entry = state_->table.find(id);
  if (entry == nullptr) return error(StatusCode::not_found, to_string(id));
  return entry->digest;
}

Result<Bytes> StateReader::read_dense(const std::string& name) const {
  return storage::read_dense(backend_, *state_, name);
}

std::vector<std::string> StateReader::dense_names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : state_->table.dense()) names.push_back(name);
  return names;
}

Result<Digest> StateReader::dense_digest(const std::string& name) const {
  const Result<const DenseEntry*> entry = find_dense(*state_, name);
  return entry.ok() ? digest_of(**entry) : Result<Digest>(entry.status());
}

Result<std::uint64_t> StateReader::dense_size(const std::string& name) const {
  const Result<const DenseEntry*> entry = find_dense(*state_, name);
  return entry.ok() ? (*entry)->size : Result<std::uint64_t>(entry.status());
}

Result<CommitInfo> StateReader::head() const {
  if (state_->info.commit == 0) {
    return error(StatusCode::not_found, "the store has no commit yet");
  }
  return state_->info;
}

std::vector<CommitInfo> StateReader::log() const {
  return log_of(backend_, *state_, store_.newest()->catalog);
}

Result<std::uint64_t> StateReader::resolve(const std::string& name) const {
  return resolve_in(*store_.newest(), name);
}

Result<VerifyReport> StateReader::verify(const VerifyOptions& options) {
  return store_.verify(options);
}

Result<std::uint64_t> StateReader::size_bytes() const { return backend_.size_bytes(); }
StoreIdentity StateReader::identity() const { return state_->identity; }
std::string StateReader::location() const { return backend_.location(); }
std::filesystem::path StateReader::scratch_folder() const { return backend_.scratch_folder(); }

Result<std::unique_ptr<PageReader>> make_reader(std::unique_ptr<Backend> backend,
                                                const std::string& snapshot) {
  StatePtr newest = std::make_shared<const State>();
  if (const std::uint64_t last = backend->last_commit(); last != 0) {
    Result<StatePtr> loaded = load_state(*backend, last);
    if (!loaded.ok()) return loaded.status();
    newest = std::move(*loaded);
  }
  StatePtr state = newest;
  if (!snapshot.empty()) {
    const Result<std::uint64_t> commit = resolve_in(*newest, snapshot);
    if (!commit.ok()) return commit.status();
    if (*commit != newest->info.commit) {
      Result<StatePtr> older = load_state(*backend, *commit);
      if (!older.ok()) return older.status();
      state = std::move(*older);
    }
  }
  backend->pin(state->info.commit);
  const Backend& kept = *backend;
  return std::unique_ptr<PageReader>(std::make_unique<StateReader>(
      kept, std::move(state),
      StateReader::Store{
          [newest] { return newest; },
          [&kept, newest](const VerifyOptions& options) {
            return verify_history(kept, *newest, options);
          },
          [owner = std::shared_ptr<Backend>(std::move(backend))]() mutable { owner.reset(); }}));
}

}  // namespace perennial::storage
