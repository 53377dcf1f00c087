// SPDX-License-Identifier: Apache-2.0
// How RocksDB is set up for the store, and how its statuses become ours.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/status.h>

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "perennial/storage/digest.h"
#include "perennial/storage/status.h"

namespace perennial::storage {

// Name and value of the whole-file digest that the manifest keeps for every file.
inline constexpr char kFileDigestName[] = "perennial.xxh3-128";
std::string file_digest_value(const Digest& digest);

rocksdb::Options make_rocksdb_options(rocksdb::Env* env);

// Calls `visit` with the value of a key; not_found, corruption, io_error.
Status read_key(rocksdb::DB& db, const std::string& key,
                const std::function<Status(std::span<const std::byte>)>& visit);

// invalid_argument if the file system cannot read `file` past the operating system's cache.
Status check_direct_reads(const std::filesystem::path& file);

// "what: RocksDB's message" with the code that fits.
Status from_rocksdb(const rocksdb::Status& status, const std::string& what);

}  // namespace perennial::storage
