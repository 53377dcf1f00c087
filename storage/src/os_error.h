// SPDX-License-Identifier: Apache-2.0
// The system's error number as a status.
#pragma once

#include <filesystem>

#include "perennial/storage/status.h"

namespace perennial::storage {

// no_space, not_found or io_error: "path: what".
Status os_error(const std::filesystem::path& path, int number);

}  // namespace perennial::storage
