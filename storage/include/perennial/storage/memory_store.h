// SPDX-License-Identifier: Apache-2.0
// The in-memory twin of the RocksDB store, for tests and for pools that need not outlive a process.
#pragma once

#include <memory>

#include "perennial/storage/page_store.h"

namespace perennial::storage {

// Keeps every commit until destroyed. Spill files go to the system's temporary folder.
std::unique_ptr<PageStore> make_memory_store();

}  // namespace perennial::storage
