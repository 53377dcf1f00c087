// SPDX-License-Identifier: Apache-2.0
// The commits that a store keeps, and which of them a retention rule lets go.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "perennial/storage/page_reader.h"

namespace perennial::storage {

struct CatalogEntry {
  std::int64_t unix_ms = 0;
  std::string snapshot;  // empty: none
  bool operator==(const CatalogEntry&) const = default;
};

// By commit. A commit that is in no catalog was dropped.
using Catalog = std::map<std::uint64_t, CatalogEntry>;

// The commit of a snapshot; 0 if there is none.
std::uint64_t find_snapshot(const Catalog& catalog, const std::string& name);

// The commits that `retention` does not keep, ascending. Snapshots, `pinned` commits and the newest
// commit stay. Hours and days are those of UTC.
std::vector<std::uint64_t> not_retained(const Catalog& catalog, const Retention& retention,
                                        const std::set<std::uint64_t>& pinned);

}  // namespace perennial::storage
