// SPDX-License-Identifier: Apache-2.0
// What machine figures were taken on.
#pragma once

#include <boost/json/object.hpp>
#include <filesystem>

namespace perennial::bench {

// {"cpu", "cores", "memory_gib", "kernel", "file_system", "disk", "load"}: file system and disk are
// those that `folder` is on, the load is the one-minute average now. What cannot be found out is
// left out.
boost::json::object describe_machine(const std::filesystem::path& folder);

}  // namespace perennial::bench
