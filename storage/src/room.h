// SPDX-License-Identifier: Apache-2.0
// What a table file takes beside its values, and what is kept free of a disk: see
// docs/storage_format.md, "Space".
#pragma once

#include <cstdint>

namespace perennial::storage {

// Of a table file as a whole: footer, properties, and beside it the edit of the manifest and the
// blocks of folders.
inline constexpr std::uint64_t kTableBytes = std::uint64_t{16} << 10;
// Of a key: itself, its entry in the index, the block that its value may fill alone.
inline constexpr std::uint64_t kKeyBytes = 256;
// Commits of data leave so much free: what opening, dropping and reclaiming live on when the disk
// is full.
inline constexpr std::uint64_t kSpareBytes = std::uint64_t{4} << 20;

}  // namespace perennial::storage
