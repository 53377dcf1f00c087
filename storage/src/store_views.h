// SPDX-License-Identifier: Apache-2.0
// views/: one folder of links for every reader beside the writer, with a lease that ends with it.
#pragma once

#include <rocksdb/env.h>

#include <filesystem>
#include <memory>
#include <vector>

#include "backend.h"
#include "perennial/storage/status.h"
#include "store_folder.h"
#include "store_lock.h"

namespace perennial::storage {

// A reader's folder; removed with the object.
class ViewFolder {
 public:
  // Null where the store cannot be written to, or its disk is full. Nothing of it is made durable.
  static Result<std::unique_ptr<ViewFolder>> make(const StoreFolder& folder);
  ~ViewFolder();
  ViewFolder(const ViewFolder&) = delete;
  ViewFolder& operator=(const ViewFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void pin(std::uint64_t commit) { lease_->pin(commit); }
  // Removes everything but the lease.
  void clear();

 private:
  ViewFolder() = default;
  std::filesystem::path path_;
  std::unique_ptr<ViewLease> lease_;
};

// The readers that live. Removes the folders of those that do not.
std::vector<Backend::Lease> sweep_views(const StoreFolder& folder, rocksdb::Env& env);

}  // namespace perennial::storage
