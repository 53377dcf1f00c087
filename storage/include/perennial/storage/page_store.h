// SPDX-License-Identifier: Apache-2.0
// PageStore: durable, atomic commits of pages and dense state, with named snapshots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "perennial/storage/dense_payload.h"
#include "perennial/storage/page_reader.h"

namespace perennial::storage {

// One page of a commit. `payload` is called once, on the thread that builds the commit's file, and
// must return shape.payload_bytes() bytes that stay valid until the next call for any page.
struct PageWrite {
  PageId id;
  PageShape shape;
  std::function<Result<std::span<const std::byte>>()> payload;
  // Which experts differ from the page's current version: bit i for expert i, where shape.experts
  // is at most 64; 0 = not known. Allows the store to write only those (see docs/storage_format.md,
  // "Deltas"); what is read back is the same.
  std::uint64_t changed = 0;
};

// A whole state, as a difference to the current one.
struct CommitRequest {
  // New and changed pages, strictly ascending by id.
  std::vector<PageWrite> pages;
  // Pages that stop existing (optimizer state of a frozen generation); ids that do not exist are
  // ignored.
  std::vector<PageId> removed_pages;
  // Dense entries that are new or changed, by name (at most 255 bytes, not empty): their bytes, or
  // functions that give them. They are cut into chunks by content, so an entry that is given again
  // unchanged costs a few bytes a chunk.
  std::map<std::string, DensePayload> dense;
  // Dense entries that stop existing.
  std::vector<std::string> removed_dense;
  // Name of a snapshot, or empty. Unique in the store; 1 to 128 characters of [A-Za-z0-9._-], not
  // digits only (that is a commit number).
  std::string snapshot;
  // Free text (JSON by convention) kept with the record and left out of the state digest: clocks,
  // machine, metrics for `log`.
  std::string note;
  // From this commit on; none: as before (a new store starts with Retention{}).
  std::optional<Retention> retention;
  // Writes dense entries anew even where the current state has the same chunks: they are damaged.
  bool rewrite_chunks = false;
  // A copy takes over the identity of what it is a copy of; only into an empty store.
  std::optional<StoreIdentity> identity;
};

struct RestoreRequest {
  std::uint64_t commit = 0;
  std::string snapshot = {};
  std::string note = {};
  bool drop_later = false;  // roll back: also drop every commit after `commit` (snapshots too)
};

struct ReclaimOptions {
  // A file is rewritten when more than this share of it is dead.
  double max_dead = 0.6;
  // Beside them the deadest files, until all files together have at most so many times the live
  // bytes; 0 = only max_dead counts. 1.2 is a thorough cleaning.
  double target_space = 0;
  // Runs of at least `fold_files` neighbouring files below `fold_bytes` each become one; 0 = never.
  std::uint32_t fold_files = 16;
  std::uint64_t fold_bytes = std::uint64_t{4} << 20;
  std::uint64_t bytes_per_second = 0;  // of rewriting; 0 = as fast as the disk
  std::function<bool()> stop = {};     // polled between files; true ends early
};

struct ReclaimReport {
  std::uint64_t files_removed = 0;
  std::uint64_t files_rewritten = 0;  // into fewer or smaller ones
  std::uint64_t bytes_rewritten = 0;
  std::uint64_t files_left = 0;    // would have been rewritten, had there been room for it
  std::uint64_t bytes_before = 0;  // of all commit files
  std::uint64_t bytes_after = 0;
  std::vector<std::string> readers;  // views that still hold files that were removed
};

struct StoreCounters {
  std::uint64_t pages_read = 0;
  std::uint64_t bytes_read = 0;
  std::uint64_t pages_written = 0;
  std::uint64_t delta_pages = 0;  // of pages_written, those stored as deltas
  std::uint64_t bytes_written = 0;
  std::uint64_t commits = 0;
  std::uint64_t reopens = 0;  // closes and reopens after a failed ingest
  std::string reclaim_error;  // why the last reclaiming in the background failed; empty: it did not
};

// The current state of a store, and its history. As a PageReader it reads the last commit.
//
// The **state digest** is XXH3-128 over the pages in id order (id, shape, payload digest), row by
// row, and the dense entries in name order (name, size, content): no commit numbers, no clocks, so
// two runs that should be equal have equal digests, whatever the implementation and the history.
//
// Thread-safety: what changes the history (commit, commit_async, restore, drop) is for one thread
// at a time; reclaim and verify may run beside it and beside readers on a thread of their own, one
// of each at a time.
class PageStore : public PageReader {
 public:
  // Makes the current state plus `request` durable and current, all or nothing. When it returns ok,
  // the commit survives a power cut. On failure the current state is the one before, except after
  // a failure of the ingest itself: then the store was closed, reopened and looked at, and the
  // result says what is true (ok if the commit is there). invalid_argument leaves the disk
  // untouched; no_space and io_error may be tried again. Waits for a commit in flight.
  virtual Result<CommitInfo> commit(const CommitRequest& request) = 0;
  // The same on the store's own thread; the call itself only checks the request. Payload functions
  // are called there. Reads see the state before until the future is ready, and the request, with
  // what it holds, is gone by then. A second one waits for the first. The store's destructor waits
  // for it too.
  virtual std::future<Result<CommitInfo>> commit_async(CommitRequest request) = 0;
  // A new commit whose state is that of an older one; costs one record.
  virtual Result<CommitInfo> restore(const RestoreRequest& request) = 0;
  // Drops commits and their snapshot names in one new commit of unchanged state. invalid_argument:
  // the current commit. not_found. busy: somebody reads one of them (named). The space comes back
  // with reclaim().
  virtual Result<CommitInfo> drop(const std::vector<std::uint64_t>& commits,
                                  const std::string& note) = 0;
  virtual Retention retention() const = 0;

  // The state of an older commit, for reading beside everything else. It keeps that commit from
  // being dropped while it lives; the store must outlive it. not_found.
  virtual Result<std::unique_ptr<PageReader>> at(std::uint64_t commit) const = 0;

  // Gives space back that only dropped commits used: removes files that are wholly dead, rewrites
  // those that are mostly dead, folds runs of small ones. Neither reads nor commits wait for it. A
  // kill or power cut at any instant loses nothing. It begins with what needs the least room;
  // no_space: there is none for anything. Dropping all but a commit, and removing dead files, takes
  // some KiB (docs/storage_format.md, "Space"), which commits of data leave free.
  virtual Result<ReclaimReport> reclaim(const ReclaimOptions& options) = 0;

  virtual StoreCounters counters() const = 0;
};

}  // namespace perennial::storage
