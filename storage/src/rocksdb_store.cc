// SPDX-License-Identifier: Apache-2.0
// Opening and creating the durable store.
#include "perennial/storage/rocksdb_store.h"

#include <system_error>
#include <utility>

#include "env_files.h"
#include "rocksdb_backend.h"
#include "rocksdb_store_internal.h"
#include "rocksdb_view.h"
#include "state_reader.h"
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
  explicit MadeFolders(rocksdb::Env& env) : env_(env) {}
  ~MadeFolders() {
    for (auto path = paths.rbegin(); path != paths.rend(); ++path) remove_one(env_, *path);
  }
  MadeFolders(const MadeFolders&) = delete;
  MadeFolders& operator=(const MadeFolders&) = delete;
  std::vector<fs::path> paths;

 private:
  rocksdb::Env& env_;
};

Status make_store(const StoreFolder& folder, RocksdbBackend& backend) {
  rocksdb::Env& env = backend.env();
  remove_unfinished(folder, env);
  std::vector<fs::path> made;
  for (const fs::path& path : {folder.db(), folder.stage(), folder.views(), folder.runs()}) {
    if (Status status = make_folders(path, made, env); !status.ok()) return status;
  }
  if (Status status = backend.create_database(); !status.ok()) return status;
  return write_format(folder, env);
}

// Takes back what make_store() made. Where FORMAT may still be on the disk the rest stays: it is a
// store, without a commit.
void unmake_store(const StoreFolder& folder, rocksdb::Env& env) {
  std::error_code code;
  if (fs::exists(folder.format(), code)) {
    remove_one(env, folder.format());
    if (fs::exists(folder.format(), code) || !sync_folder(env, folder.root).ok()) return;
  }
  remove_unfinished(folder, env);
}

Status open_existing(const StoreFolder& folder, RocksdbBackend& backend, VersionedStore& store) {
  if (Status status = check_format(folder); !status.ok()) return status;
  if (Status status = backend.open_to_look(); !status.ok()) return status;
  if (Status status = store.load(); !status.ok()) return status;
  const std::uint64_t seen = backend.last_commit();
  for (const fs::path& path : {folder.stage(), folder.views(), folder.runs()}) {
    std::vector<fs::path> made;
    if (Status status = make_folders(path, made, backend.env()); !status.ok()) return status;
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

  rocksdb::Env& env = seam.env != nullptr ? *seam.env : *rocksdb::Env::Default();
  MadeFolders made(env);  // outlives the lock, whose file must go first
  if (Status status = make_folders(folder.root, made.paths, env); !status.ok()) return status;
  Result<std::unique_ptr<StoreLock>> lock = StoreLock::take(folder.lock());
  if (!lock.ok()) return lock.status();
  auto owned = std::make_unique<RocksdbBackend>(folder, options, seam, std::move(*lock));
  RocksdbBackend& backend = *owned;
  const VersionedStoreOptions store_options{.full_table_every = options.full_table_every,
                                            .reclaim_in_background = options.reclaim_in_background};
  auto store = std::make_unique<VersionedStore>(std::move(owned), store_options);

  state = look_at_folder(folder);  // another process may have made the store meanwhile
  if (!state.ok()) return state.status();
  if (Status status = check_mode(folder, *state, options.mode); !status.ok()) return status;
  const bool fresh = *state != FolderState::store;
  Status status = fresh ? make_store(folder, backend) : Status();
  if (status.ok()) status = open_existing(folder, backend, *store);
  if (!status.ok()) {
    if (fresh) unmake_store(folder, backend.env());
    return status;
  }
  backend.keep_lock();
  made.paths.clear();
  return std::unique_ptr<PageStore>(std::move(store));
}

Result<std::unique_ptr<PageStore>> open_rocksdb_store(const fs::path& folder,
                                                      const RocksdbStoreOptions& options) {
  return open_rocksdb_store_with(folder, options, {});
}

Result<std::unique_ptr<PageReader>> open_rocksdb_view_with(const fs::path& path,
                                                           const ViewOptions& options,
                                                           const StoreSeam& seam) {
  std::error_code code;
  const StoreFolder folder{fs::absolute(path, code).lexically_normal()};
  Result<std::unique_ptr<Backend>> view = open_view(folder, options, seam);
  if (!view.ok()) return view.status();
  return make_reader(std::move(*view), options.snapshot);
}

Result<std::unique_ptr<PageReader>> open_rocksdb_view(const fs::path& folder,
                                                      const ViewOptions& options) {
  return open_rocksdb_view_with(folder, options, {});
}

}  // namespace perennial::storage
