// SPDX-License-Identifier: Apache-2.0
// Opening and creating the durable store.
#include "perennial/storage/rocksdb_store.h"

#include <system_error>
#include <utility>

#include "rocksdb_backend.h"
#include "rocksdb_store_internal.h"
#include "store_folder.h"
#include "store_lock.h"
#include "text.h"
#include "versioned_store.h"

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

// Removes the folders a failed creation made, innermost first; those not empty stay.
class MadeFolders {
 public:
  MadeFolders() = default;
  ~MadeFolders() {
    std::error_code ignored;
    for (auto path = paths.rbegin(); path != paths.rend(); ++path) fs::remove(*path, ignored);
  }
  MadeFolders(const MadeFolders&) = delete;
  MadeFolders& operator=(const MadeFolders&) = delete;
  std::vector<fs::path> paths;
};

Status make_store(const StoreFolder& folder, RocksdbBackend& backend) {
  remove_unfinished(folder);
  MadeFolders made;
  Status status;
  for (const fs::path& path : {folder.db(), folder.stage(), folder.runs()}) {
    if (status.ok()) status = make_folders(path, made.paths);
  }
  if (status.ok()) status = backend.create_database();
  if (status.ok()) status = write_format(folder);
  if (!status.ok()) {
    remove_unfinished(folder);
    return status;
  }
  made.paths.clear();
  return {};
}

Status open_existing(const StoreFolder& folder, RocksdbBackend& backend, VersionedStore& store) {
  if (Status status = check_format(folder); !status.ok()) return status;
  if (Status status = backend.open_to_look(); !status.ok()) return status;
  if (Status status = store.load(); !status.ok()) return status;
  const std::uint64_t seen = backend.last_commit();
  for (const fs::path& path : {folder.stage(), folder.runs()}) {
    std::vector<fs::path> made;
    if (Status status = make_folders(path, made); !status.ok()) return status;
  }
  if (Status status = backend.open_to_write(); !status.ok()) return status;
  return backend.last_commit() == seen ? Status() : store.load();
}

}  // namespace

Result<std::unique_ptr<PageStore>> open_rocksdb_store_with(const fs::path& path,
                                                           const RocksdbStoreOptions& options,
                                                           const StoreSeam& seam) {
  if (options.full_table_every == 0) {
    return error(StatusCode::invalid_argument, "full_table_every is 0; it may be 1 or more");
  }
  std::error_code code;
  const StoreFolder folder{fs::absolute(path, code).lexically_normal()};
  Result<FolderState> state = look_at_folder(folder);
  if (!state.ok()) return state.status();
  if (Status status = check_mode(folder, *state, options.mode); !status.ok()) return status;

  MadeFolders made;  // outlives the lock, whose file must go first
  if (Status status = make_folders(folder.root, made.paths); !status.ok()) return status;
  Result<std::unique_ptr<StoreLock>> lock = StoreLock::take(folder.lock());
  if (!lock.ok()) return lock.status();
  auto owned = std::make_unique<RocksdbBackend>(folder, seam, std::move(*lock));
  RocksdbBackend& backend = *owned;
  auto store = std::make_unique<VersionedStore>(std::move(owned), options.full_table_every);

  state = look_at_folder(folder);  // another process may have made the store meanwhile
  if (!state.ok()) return state.status();
  if (Status status = check_mode(folder, *state, options.mode); !status.ok()) return status;
  if (*state != FolderState::store) {
    if (Status status = make_store(folder, backend); !status.ok()) return status;
  }
  if (Status status = open_existing(folder, backend, *store); !status.ok()) return status;
  backend.keep_lock();
  made.paths.clear();
  return std::unique_ptr<PageStore>(std::move(store));
}

Result<std::unique_ptr<PageStore>> open_rocksdb_store(const fs::path& folder,
                                                      const RocksdbStoreOptions& options) {
  return open_rocksdb_store_with(folder, options, {});
}

}  // namespace perennial::storage
