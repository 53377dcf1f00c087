// SPDX-License-Identifier: Apache-2.0
// The file system of a store: the one it is given, and what RocksDB leaves out.
#pragma once

#include <rocksdb/env.h>

#include <memory>

namespace perennial::storage {

// What becomes of bytes after the last whole record of a manifest.
enum class ManifestEnd {
  as_it_is,  // RocksDB takes a torn record for the end, and refuses garbage
  cut,       // reading ends before them, whatever they are
};

// An Env on the file system of `env`, which must outlive it:
//   - The folder is synced before CURRENT is replaced, so that CURRENT never names a manifest whose
//     own name a power cut took away.
//   - A file to be ingested (N.ingest) is opened by reading and checking all that RocksDB needs of
//     it, with some attempts; it is then served from memory. RocksDB 7.8.3 does not ask whether its
//     reading of the first and last key worked: it would list keys that it did not read, or stop
//     the process where it was built with assertions.
//   - Manifests are read as `end` says. `cut` is only for those who then look for the files of
//     edits that were lost: see docs/storage_format.md, "Opening".
std::unique_ptr<rocksdb::Env> make_store_env(rocksdb::Env& env, ManifestEnd end);

}  // namespace perennial::storage
