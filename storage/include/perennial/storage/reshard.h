// SPDX-License-Identifier: Apache-2.0
// Spreads the pages of a state over several stores by ranges of rows, and brings them together.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "perennial/storage/page_store.h"

namespace perennial::storage {

// The dense entry that says which part of what a part is. Text: "I N DIGEST", part I (from 0) of N
// of the state with that digest. A whole store has none.
inline constexpr char kPartEntry[] = "reshard/part";

struct ReshardOptions {
  // Called after each page; false stops: parts that are complete by then stay.
  std::function<bool(std::uint64_t pages_done, std::uint64_t pages)> on_progress = {};
};

struct ReshardReport {
  std::string state_digest;          // of the whole, hexadecimal
  std::vector<std::uint64_t> pages;  // of each part written
};

// The state digest (hexadecimal) of the whole that these stores are all parts of, or are. Reads no
// page. invalid_argument: parts that are missing, twice there, of different states, or changed
// since they were cut.
Result<std::string> check_parts(const std::vector<const PageReader*>& from);

// Reads a whole state, or all parts of one in any order, and writes it to the empty stores `to`:
// one gets the whole state, several get a part each, cut at row boundaries into about equal numbers
// of pages; a row's weights and optimizer state stay together. Every part holds the dense state and
// the identity. Ids never change, so 1 -> 4 -> 3 -> 1 gives the same state digest.
// invalid_argument, before anything is written: parts that are missing, twice there, of different
// states, or a target that is not empty. Memory: one page and the dense state.
Result<ReshardReport> reshard(const std::vector<const PageReader*>& from,
                              const std::vector<PageStore*>& to,
                              const ReshardOptions& options = {});

}  // namespace perennial::storage
