// SPDX-License-Identifier: Apache-2.0
// Names of pools and layers.
#pragma once

#include <cstdint>
#include <string_view>

namespace perennial {

// The pool, and the layer, of a store that has one of each and names neither.
inline constexpr std::string_view kDefaultName = "peer";

// Throws InvalidOptions unless `name` is 1 to 64 characters of [A-Za-z0-9._-]. what: "pool", say.
void require_name(std::string_view what, std::string_view name);

// The seed that the bearer of a name draws with: `seed` itself for kDefaultName, else the first 52
// bits of XXH3-128 over name and seed. Part of the stored format.
std::int64_t seed_for(std::int64_t seed, std::string_view name);

}  // namespace perennial
