// SPDX-License-Identifier: Apache-2.0
// How RocksDB is set up for the store, and how its statuses become ours.
#pragma once

#include <rocksdb/options.h>
#include <rocksdb/status.h>

#include <string>

#include "perennial/storage/digest.h"
#include "perennial/storage/status.h"

namespace perennial::storage {

// Name and value of the whole-file digest that the manifest keeps for every file.
inline constexpr char kFileDigestName[] = "perennial.xxh3-128";
std::string file_digest_value(const Digest& digest);

rocksdb::Options make_rocksdb_options(rocksdb::Env* env);

// The same, writing nothing at all beside what is asked for: for looking without touching.
rocksdb::Options make_inspection_options(rocksdb::Env* env);

// "what: RocksDB's message" with the code that fits.
Status from_rocksdb(const rocksdb::Status& status, const std::string& what);

}  // namespace perennial::storage
