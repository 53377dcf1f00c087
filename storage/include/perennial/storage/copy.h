// SPDX-License-Identifier: Apache-2.0
// Copies one state into another store: a backup, full or on top of an earlier one.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "perennial/storage/page_store.h"

namespace perennial::storage {

struct CopyOptions {
  // Snapshot name in the copy; none: the source's own, unless the copy has that name already.
  std::optional<std::string> snapshot = {};
  // The copy's rule from now on; none: as it was (a new one starts with Retention{}).
  std::optional<Retention> retention = {};
  // Called after each page; false stops with nothing changed.
  std::function<bool(std::uint64_t pages_done, std::uint64_t pages)> on_progress = {};
};

struct CopyReport {
  CommitInfo commit;  // of the copy; the one it had when there was nothing to do
  bool up_to_date = false;
  std::uint64_t pages_copied = 0;
  std::uint64_t pages_kept = 0;  // there already, with the same digest
  std::uint64_t pages_removed = 0;
  std::uint64_t dense_copied = 0;
  std::uint64_t bytes_copied = 0;
};

// Makes `to`'s state that of `from`, in one commit with the same state digest, note and identity;
// only pages and dense entries that differ are read and written. `to` must be empty or a copy of
// the same store (or its source): invalid_argument otherwise, and when both are one store. A page
// that cannot be read ends the copy with nothing changed. Neither blocks the other: `from` may be a
// view beside a writer.
Result<CopyReport> copy_state(const PageReader& from, PageStore& to,
                              const CopyOptions& options = {});

}  // namespace perennial::storage
