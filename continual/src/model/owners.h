// SPDX-License-Identifier: Apache-2.0
// Which generation learnt each experience, as a store keeps it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "perennial/storage/page_store.h"

namespace perennial::continual {

// Dense entry (experiences) int64; there only once an experience has returned to a generation.
inline constexpr const char* kOwners = "generation_of";

// Dense entry `name`, a list of int64; empty without it. Throws StorageError, DataError.
std::vector<std::int64_t> read_numbers(const storage::PageReader& store, const std::string& name);

// Empty without the entry: each experience has a generation of its own then. Throws StorageError,
// DataError.
std::vector<std::int64_t> read_owners(const storage::PageReader& store);

// The generation of an experience, or for one that is yet to come the one it would open.
std::int64_t owner_of(const std::vector<std::int64_t>& owners, std::int64_t experience);

}  // namespace perennial::continual
