// SPDX-License-Identifier: Apache-2.0
// Making, listing and removing the folders in views/.
#include "store_views.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <optional>
#include <system_error>

#include "env_files.h"
#include "os_error.h"
#include "text.h"

namespace perennial::storage {
namespace fs = std::filesystem;
namespace {

constexpr char kLease[] = "LEASE";

bool cannot_write(int number) {
  return number == EROFS || number == EACCES || number == EPERM || number == ENOSPC ||
         number == EDQUOT;
}

std::string unique_name() {
  static std::atomic<unsigned> counter{0};
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return text_of(::getpid(), "-", counter++, "-",
                 std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

}  // namespace

Result<std::unique_ptr<ViewFolder>> ViewFolder::make(const StoreFolder& folder) {
  std::unique_ptr<ViewFolder> none;
  if (::mkdir(folder.views().c_str(), 0700) != 0 && errno != EEXIST) {
    if (cannot_write(errno)) return none;
    return os_error(folder.views(), errno);
  }
  // So that the writer does not take a folder whose lease is yet to come for a dead one.
  const FolderLock making(folder.views(), FolderLock::Mode::shared);
  if (!making.held()) {
    if (cannot_write(errno)) return none;
    return os_error(folder.views(), errno);
  }
  std::unique_ptr<ViewFolder> view(new ViewFolder);
  const fs::path path = folder.views() / unique_name();
  if (::mkdir(path.c_str(), 0700) != 0) {
    if (cannot_write(errno)) return none;
    return os_error(path, errno);
  }
  view->path_ = path;
  Result<std::unique_ptr<ViewLease>> lease = ViewLease::take(path / kLease);
  if (lease.status().code() == StatusCode::no_space) return none;
  if (!lease.ok()) return lease.status();
  view->lease_ = std::move(*lease);
  return view;
}

void ViewFolder::clear() {
  std::error_code code;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path_, code)) {
    if (entry.path().filename() != kLease) files.push_back(entry.path());
  }
  for (const fs::path& file : files) fs::remove_all(file, code);
}

ViewFolder::~ViewFolder() {
  if (path_.empty() || (lease_ != nullptr && !lease_->is_owner())) return;
  clear();
  std::error_code ignored;
  fs::remove(path_ / kLease, ignored);
  fs::remove(path_, ignored);
}

std::vector<Backend::Lease> sweep_views(const StoreFolder& folder, rocksdb::Env& env) {
  const FolderLock alone(folder.views(), FolderLock::Mode::exclusive_if_free);
  std::vector<Backend::Lease> leases;
  std::vector<fs::path> dead;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder.views(), code)) {
    if (const auto lease = read_live_lease(entry.path() / kLease)) {
      leases.push_back({lease->reader, lease->commit});
    } else {
      dead.push_back(entry.path());
    }
  }
  if (alone.held()) {
    for (const fs::path& path : dead) remove_all(env, path);
  }
  return leases;
}

}  // namespace perennial::storage
