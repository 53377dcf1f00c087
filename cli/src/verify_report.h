// SPDX-License-Identifier: Apache-2.0
// Verifying a store with progress, and printing what that finds.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>

#include "flags.h"
#include "output.h"
#include "perennial/storage/page_reader.h"

namespace perennial::cli {

// Reads everything at `rate` bytes a second (0: no limit); prints findings and a summary. The
// result has "intact" and "damage".
boost::json::object verify_and_print(storage::PageReader& store, const std::string& folder,
                                     std::int64_t rate, const CommonOptions& common,
                                     const Output& output);

// Says on standard error that the store is damaged; the exit code for that.
int damaged(const std::string& folder, const boost::json::object& result);

}  // namespace perennial::cli
