// SPDX-License-Identifier: Apache-2.0
// Changes to files and folders through the store's rocksdb::Env, so that whoever supplies one (a
// test that cuts the power) sees all of them.
#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "perennial/storage/status.h"

namespace perennial::storage {

// Makes a folder that only the user may enter; ok if it is there.
Status make_private_folder(rocksdb::Env& env, const std::filesystem::path& path);
Status sync_folder(rocksdb::Env& env, const std::filesystem::path& path);
Status link_file(rocksdb::Env& env, const std::filesystem::path& from,
                 const std::filesystem::path& to);
Status rename_file(rocksdb::Env& env, const std::filesystem::path& from,
                   const std::filesystem::path& to);
// Writes a file anew and syncs it (not its folder).
Status write_file(rocksdb::Env& env, const std::filesystem::path& path, const std::string& text);
// Fills `into`, or fails.
rocksdb::IOStatus read_exactly(const rocksdb::FSRandomAccessFile& file, std::uint64_t offset,
                               std::span<char> into);
// Removes a file, or a folder and all in it, as far as that works.
void remove_all(rocksdb::Env& env, const std::filesystem::path& path);
// Removes a file or an empty folder, if that works.
void remove_one(rocksdb::Env& env, const std::filesystem::path& path);

}  // namespace perennial::storage
