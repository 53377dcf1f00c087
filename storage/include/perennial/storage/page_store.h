// SPDX-License-Identifier: Apache-2.0
// PageStore: durable, atomic commits of pages and dense state, with named snapshots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "perennial/storage/digest.h"
#include "perennial/storage/page.h"
#include "perennial/storage/status.h"

namespace perennial::storage {

using Bytes = std::vector<std::byte>;

// One page of a commit. `payload` is called once, while the commit's file is built, and must return
// shape.payload_bytes() bytes that stay valid until the next call for any page.
struct PageWrite {
  PageId id;
  PageShape shape;
  std::function<Result<std::span<const std::byte>>()> payload;
};

// A whole state, as a difference to the current one.
struct CommitRequest {
  // New and changed pages, strictly ascending by id.
  std::vector<PageWrite> pages;
  // Pages that stop existing (optimizer state of a frozen generation); ids that do not exist are
  // ignored.
  std::vector<PageId> removed_pages;
  // Dense entries that are new or changed, by name (at most 255 bytes, not empty). They are cut
  // into chunks by content, so an entry that is given again unchanged costs a few bytes a chunk.
  std::map<std::string, Bytes> dense;
  // Dense entries that stop existing.
  std::vector<std::string> removed_dense;
  // Name of a snapshot, or empty. Unique in the store; 1 to 128 characters of [A-Za-z0-9._-], not
  // digits only (that is a commit number).
  std::string snapshot;
  // Free text (JSON by convention) kept with the record and left out of the state digest: clocks,
  // machine, metrics for `log`.
  std::string note;
};

struct CommitInfo {
  std::uint64_t commit = 0;  // 1, 2, ...: ascending, never reused
  std::uint64_t parent = 0;  // the state this one was made from; 0 for the first
  std::string snapshot;
  std::string note;
  std::int64_t unix_ms = 0;
  Digest state_digest;  // of the whole state after this commit
  std::uint64_t pages_written = 0;
  std::uint64_t pages_removed = 0;
  std::uint64_t pages_listed = 0;   // pages of the whole state
  std::uint64_t bytes_written = 0;  // payload of pages and new chunks
  std::uint64_t file_bytes = 0;     // what the commit added to the disk (0 in memory)
  std::uint64_t live_bytes = 0;     // of bytes_written, what the current state still uses
};

// One thing `verify` found.
struct Damage {
  std::string file;  // path, where one is known
  std::string what;  // page, chunk or record, and what is wrong with it
};

struct VerifyReport {
  std::uint64_t pages = 0;
  std::uint64_t chunks = 0;
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  std::vector<Damage> damage;  // empty: everything is intact
};

struct StoreCounters {
  std::uint64_t pages_read = 0;
  std::uint64_t bytes_read = 0;
  std::uint64_t pages_written = 0;
  std::uint64_t bytes_written = 0;
  std::uint64_t commits = 0;
  std::uint64_t reopens = 0;  // closes and reopens after a failed ingest
};

// The current state of a store, and its history. Reads see the last commit only.
//
// The **state digest** is XXH3-128 over the pages in id order (id, shape, payload digest), row by
// row, and the dense entries in name order (name, size, content): no commit numbers, no clocks, so
// two runs that should be equal have equal digests, whatever the implementation and the history.
//
// Thread-safety: read_page may be called from several threads at once while no other member runs;
// everything else from one thread at a time.
class PageStore {
 public:
  virtual ~PageStore() = default;

  // True if the current state lists the page. O(log pages), no I/O.
  virtual bool contains(const PageId& id) const = 0;
  // Shape of a listed page; not_found otherwise. No I/O.
  virtual Result<PageShape> page_shape(const PageId& id) const = 0;
  // Copies a page's payload into `payload` after checking header and digest. not_found: not listed.
  // invalid_argument: `payload` has another size. corruption: names the page and its file.
  virtual Status read_page(const PageId& id, std::span<std::byte> payload) const = 0;
  // The listed pages in id order. O(pages).
  virtual std::vector<PageId> pages() const = 0;
  // Digest of a listed page's payload; no I/O.
  virtual Result<Digest> page_digest(const PageId& id) const = 0;

  // A dense entry, whole; not_found, corruption.
  virtual Result<Bytes> read_dense(const std::string& name) const = 0;
  virtual std::vector<std::string> dense_names() const = 0;

  // Makes the current state plus `request` durable and current, all or nothing. When it returns ok,
  // the commit survives a power cut. On failure the current state is the one before, except after
  // a failure of the ingest itself: then the store was closed, reopened and looked at, and the
  // result says what is true (ok if the commit is there). invalid_argument leaves the disk
  // untouched.
  virtual Result<CommitInfo> commit(const CommitRequest& request) = 0;
  // A new commit whose state is that of `commit`; costs one record. `snapshot` as in CommitRequest.
  virtual Result<CommitInfo> restore(std::uint64_t commit, const std::string& snapshot,
                                     const std::string& note) = 0;

  // The last commit; not_found in an empty store.
  virtual Result<CommitInfo> head() const = 0;
  // All commits, oldest first; reads every record. A record that cannot be read leaves its commit
  // number, and the error as the note.
  virtual std::vector<CommitInfo> log() const = 0;
  // The commit of a snapshot name, or of a decimal commit number; not_found.
  virtual Result<std::uint64_t> resolve(const std::string& name) const = 0;

  // Reads every byte of every commit and names what is broken. Cost: reads the whole store twice,
  // once by file and once by page.
  virtual Result<VerifyReport> verify() = 0;

  virtual StoreCounters counters() const = 0;
  // A folder where temporary files of the same file system may be made (spill files).
  virtual std::filesystem::path scratch_folder() const = 0;
  // Bytes on disk (or in memory) of the whole store.
  virtual Result<std::uint64_t> size_bytes() const = 0;
};

}  // namespace perennial::storage
