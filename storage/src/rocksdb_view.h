// SPDX-License-Identifier: Apache-2.0
// Opens a store for reading beside its writer.
#pragma once

#include <memory>

#include "backend.h"
#include "perennial/storage/rocksdb_store.h"
#include "perennial/storage/status.h"
#include "rocksdb_store_internal.h"
#include "store_folder.h"

namespace perennial::storage {

// A backend that only reads: the commits that the manifest lists at this moment. Its writing
// members are invalid_argument. Where the store cannot be written to, it reads db/ in place.
Result<std::unique_ptr<Backend>> open_view(const StoreFolder& folder, const ViewOptions& options,
                                           const StoreSeam& seam);

}  // namespace perennial::storage
