// SPDX-License-Identifier: Apache-2.0
// Loading a state from the records of its commits.
#include "state.h"

#include <utility>

#include "keys.h"
#include "text.h"

namespace perennial::storage {

std::string where(const Backend& backend, std::uint64_t commit) {
  const std::string file = backend.file_of(commit).path;
  return text_of("commit ", commit, ", ", file.empty() ? backend.location() : file);
}

Result<Record> read_record(const Backend& backend, std::uint64_t commit, std::uint64_t* bytes) {
  std::optional<Record> record;
  Status status = backend.get(record_key(commit), [&](std::span<const std::byte> value) {
    if (bytes != nullptr) *bytes += value.size();
    Result<Record> decoded = decode_record(value, commit);
    if (!decoded.ok()) return decoded.status();
    record = std::move(*decoded);
    return Status();
  });
  if (!status.ok()) {
    // A record that the catalog promises is never merely absent.
    const StatusCode code =
        status.code() == StatusCode::not_found ? StatusCode::corruption : status.code();
    return error(code, status.message(), " (record of ", where(backend, commit), ")");
  }
  record->info.file_bytes = backend.file_of(commit).bytes;
  return std::move(*record);
}

Result<std::vector<Record>> read_chain(const Backend& backend, std::uint64_t commit,
                                       std::uint64_t known) {
  std::vector<Record> records;
  for (std::uint64_t at = commit; at != known; --at) {
    if (at == 0) {
      return error(StatusCode::corruption, "no full page table at or before ",
                   where(backend, commit));
    }
    Result<Record> record = read_record(backend, at);
    if (!record.ok()) return record.status();
    records.push_back(std::move(*record));
    if (records.back().full) break;
  }
  return records;
}

State next_state(const State& before, const Record& record) {
  State state;
  StateTable::Builder table(record.full ? StateTable() : before.table);
  if (record.full) {
    for (const ListedPage& page : record.table) table.set(page.id, page.entry);
    state.catalog = record.catalog;
    state.full_commit = record.info.commit;
  } else {
    for (const PageId& id : record.removed) table.erase(id);
    for (const ListedPage& page : record.pages) table.set(page.id, page.entry);
    state.catalog = before.catalog;
    for (const std::uint64_t commit : record.dropped) state.catalog.erase(commit);
    state.catalog[record.info.commit] = {record.info.unix_ms, record.info.snapshot};
    state.full_commit = before.full_commit;
  }
  table.set_dense(record.dense);
  state.table = table.build();
  state.info = record.info;
  state.identity = record.identity;
  state.retention = record.retention;
  return state;
}

Result<StatePtr> load_state(const Backend& backend, std::uint64_t commit) {
  Result<std::vector<Record>> records = read_chain(backend, commit);
  if (!records.ok()) return records.status();
  State state;
  for (auto at = records->rbegin(); at != records->rend(); ++at) state = next_state(state, *at);
  if (state.table.size() != state.info.pages_listed ||
      state.table.digest() != state.info.state_digest) {
    return error(StatusCode::corruption, "the page table does not have the recorded state digest ",
                 state.info.state_digest.hex(), " (", where(backend, commit), ")");
  }
  return std::make_shared<const State>(std::move(state));
}

}  // namespace perennial::storage
