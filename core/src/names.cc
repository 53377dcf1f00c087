// SPDX-License-Identifier: Apache-2.0
// What names may be, and what they do to a seed.
#include "perennial/core/names.h"

#include <algorithm>
#include <string>

#include "perennial/core/error.h"
#include "perennial/storage/digest.h"

namespace perennial {

void require_name(std::string_view what, std::string_view name) {
  const bool fits =
      !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
               c == '.' || c == '_' || c == '-';
      });
  if (fits) return;
  throw InvalidOptions("the name of a " + std::string(what) + " is '" + std::string(name) +
                       "'; it must be 1 to 64 characters of [A-Za-z0-9._-]");
}

std::int64_t seed_for(std::int64_t seed, std::string_view name) {
  if (name == kDefaultName) return seed;
  storage::Hasher hasher;
  hasher.update(name).update(static_cast<std::uint64_t>(seed));
  const storage::Digest digest = hasher.finish();
  std::uint64_t mixed = 0;
  for (std::size_t i = 0; i < sizeof(mixed); ++i) mixed = mixed << 8 | digest.bytes[i];
  return static_cast<std::int64_t>(mixed >> 12);
}

}  // namespace perennial
