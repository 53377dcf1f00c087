// SPDX-License-Identifier: Apache-2.0
// PageReader: one state of a store, to read from: the current one, an older commit's, or a view's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "perennial/storage/digest.h"
#include "perennial/storage/page.h"
#include "perennial/storage/status.h"
#include "perennial/storage/verify.h"

namespace perennial::storage {

using Bytes = std::vector<std::byte>;

// How many commits a store keeps. Those that no rule keeps are dropped by the next commit.
struct Retention {
  // The last n commits, the current one included; 0 keeps every commit.
  std::uint32_t keep_last = 3;
  // Beside them the newest commit of each of the last so many hours and days that have one.
  std::uint32_t hourly = 0;
  std::uint32_t daily = 0;
  // Snapshots, and commits that somebody reads, are always kept.
  bool operator==(const Retention&) const = default;
  static Retention all() { return {.keep_last = 0}; }
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
  std::uint64_t bytes_written = 0;  // of pages (as stored: whole or deltas) and new chunks
  std::uint64_t file_bytes = 0;     // of the file that holds the commit, others' bytes included
  std::uint64_t live_bytes = 0;     // of bytes_written, what the current state still uses
};

// What a store is, whoever copies it: the same in a store and in all copies made of it.
struct StoreIdentity {
  Digest origin;  // drawn at random when the first store of the line was made
  bool operator==(const StoreIdentity&) const = default;
};

// Thread-safety: all members may be called from several threads at once, also while the store that
// this state belongs to commits, drops, reclaims or reopens. What a caller sees is the state before
// or after a commit, never between.
class PageReader {
 public:
  virtual ~PageReader() = default;

  // True if the state lists the page. O(log pages), no I/O.
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
  // XXH3-128 over size and chunk digests of a dense entry: equal if the bytes are. No I/O.
  virtual Result<Digest> dense_digest(const std::string& name) const = 0;
  virtual Result<std::uint64_t> dense_size(const std::string& name) const = 0;

  // The commit whose state this is; not_found in an empty store.
  virtual Result<CommitInfo> head() const = 0;
  // The commits that can be restored, oldest first; reads every record. A record that cannot be
  // read leaves its commit number, and the error as the note.
  virtual std::vector<CommitInfo> log() const = 0;
  // The commit of a snapshot name, or of a decimal commit number; not_found, also when dropped.
  virtual Result<std::uint64_t> resolve(const std::string& name) const = 0;

  // Reads every byte that the store's commits need, and every file, and names what is broken. Cost:
  // reads the store twice, once by file and once by page. A view verifies what it links.
  virtual Result<VerifyReport> verify(const VerifyOptions& options = {}) = 0;
  // Bytes on disk (or in memory) of the whole store.
  virtual Result<std::uint64_t> size_bytes() const = 0;

  virtual StoreIdentity identity() const = 0;
  // Where the store is, as messages name it ("memory" for the one that has no folder).
  virtual std::string location() const = 0;
  // A folder where temporary files may be made (spill files).
  virtual std::filesystem::path scratch_folder() const = 0;
};

}  // namespace perennial::storage
