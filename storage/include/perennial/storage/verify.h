// SPDX-License-Identifier: Apache-2.0
// How a store is verified, and what that finds.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "perennial/storage/page.h"

namespace perennial::storage {

// One thing `verify` found.
struct Damage {
  std::string file;  // path, where one is known
  std::string what;  // page, chunk or record with its commit, and what is wrong with it
  std::optional<PageId> page;
  std::uint64_t commit = 0;  // that holds the damaged bytes; 0: not known
};

struct VerifyOptions {
  std::uint64_t bytes_per_second = 0;  // 0 = as fast as the disk
  // Called now and then with the bytes read so far and in all; false ends with what was found.
  std::function<bool(std::uint64_t done, std::uint64_t total)> on_progress = {};
};

struct VerifyReport {
  std::uint64_t pages = 0;  // page versions
  std::uint64_t chunks = 0;
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  bool finished = true;        // false: ended by on_progress
  std::vector<Damage> damage;  // empty: everything that was read is intact
};

}  // namespace perennial::storage
