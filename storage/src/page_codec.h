// SPDX-License-Identifier: Apache-2.0
// Stored pages: the 64-byte header, and what follows it: a whole payload or a delta on one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "perennial/storage/digest.h"
#include "perennial/storage/page.h"
#include "perennial/storage/page_store.h"
#include "perennial/storage/status.h"
#include "state_table.h"

namespace perennial::storage {

inline constexpr std::size_t kPageHeaderBytes = 64;
inline constexpr std::uint32_t kPageFormatVersion = 2;

using PageHeader = std::array<std::byte, kPageHeaderBytes>;

// ok if the shape may be stored: a known dtype, not empty, at most kMaxPageBytes.
Status check_shape(const PageShape& shape);

// True if `changed` may be the experts of a delta of such a page.
bool is_delta_of(std::uint64_t changed, const PageShape& shape);
// True if a delta of these experts is worth its second read: at most a third of the page.
bool delta_pays(std::uint64_t changed, const PageShape& shape);
// Bytes of a page as stored, after the header.
std::size_t stored_bytes(const PageEntry& entry);

// The header of a page whose stored body (whole or delta, see `entry`) has the digest `body`.
PageHeader encode_page_header(const PageId& id, const PageEntry& entry, const Digest& body);
// The body of a delta: the records of entry.changed, ascending.
Bytes encode_delta(const PageEntry& entry, std::span<const std::byte> payload);

// The body of a stored value after checking the header against `id` and `entry` and the body
// against the header. corruption or version_mismatch say what differs, without naming the page.
// `digest` gets the body's XXH3-128.
Result<std::span<const std::byte>> check_page_value(std::span<const std::byte> value,
                                                    const PageId& id, const PageEntry& entry,
                                                    Digest& digest);
// Writes a delta's body over the payload of its base.
void apply_delta(const PageEntry& entry, std::span<const std::byte> body,
                 std::span<std::byte> payload);

}  // namespace perennial::storage
