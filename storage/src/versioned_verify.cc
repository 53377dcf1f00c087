// SPDX-License-Identifier: Apache-2.0
// VersionedStore: verify reads every byte of every commit and goes on after damage.
#include <set>

#include "keys.h"
#include "page_codec.h"
#include "text.h"
#include "versioned_store.h"

namespace perennial::storage {

void VersionedStore::verify_commit(std::uint64_t commit, VerifyReport& report) const {
  const std::string file = backend_->file_of(commit);
  const auto damaged = [&](const std::string& what, const Status& status) {
    report.damage.push_back({file, text_of(what, " of commit ", commit, ": ", status.message())});
  };
  Record record;
  Status status = backend_->get(record_key(commit), [&](std::span<const std::byte> value) {
    report.bytes += value.size();
    Result<Record> decoded = decode_record(value, commit);
    if (!decoded.ok()) return decoded.status();
    record = std::move(*decoded);
    return Status();
  });
  if (!status.ok()) {
    damaged("record", status);
    return;
  }
  ++report.records;
  for (const ListedPage& page : record.pages) {
    status = backend_->get(page_key(commit, page.id), [&](std::span<const std::byte> value) {
      report.bytes += value.size();
      return check_page_value(value, page.id, page.entry.shape, commit, page.entry.digest);
    });
    ++report.pages;
    if (!status.ok()) damaged(to_string(page.id), status);
  }
  std::set<Digest> seen;
  for (const auto& [name, entry] : record.dense) {
    for (std::size_t i = 0; i < entry.chunks.size(); ++i) {
      const ChunkRef& chunk = entry.chunks[i];
      if (chunk.commit != commit || !seen.insert(chunk.digest).second) continue;
      status =
          backend_->get(chunk_key(commit, chunk.digest), [&](std::span<const std::byte> value) {
            report.bytes += value.size();
            if (value.size() == entry.chunk_bytes(i) && digest_of(value) == chunk.digest) {
              return Status();
            }
            return error(StatusCode::corruption, "expected digest ", chunk.digest.hex(), ", found ",
                         digest_of(value).hex());
          });
      ++report.chunks;
      if (!status.ok()) damaged(text_of("dense entry '", name, "' chunk ", i), status);
    }
  }
}

Result<VerifyReport> VersionedStore::verify() {
  if (Status status = ensure_open(); !status.ok()) return status;
  VerifyReport report;
  backend_->verify_files(report.damage);
  for (std::uint64_t commit = 1; commit <= head_.commit; ++commit) verify_commit(commit, report);
  return report;
}

}  // namespace perennial::storage
