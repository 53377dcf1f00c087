// SPDX-License-Identifier: Apache-2.0
// The 64-byte header that stands before every stored page's payload.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "perennial/storage/digest.h"
#include "perennial/storage/page.h"
#include "perennial/storage/status.h"

namespace perennial::storage {

inline constexpr std::size_t kPageHeaderBytes = 64;
inline constexpr std::uint32_t kPageFormatVersion = 1;

using PageHeader = std::array<std::byte, kPageHeaderBytes>;

PageHeader encode_page_header(const PageId& id, const PageShape& shape, std::uint64_t commit,
                              std::span<const std::byte> payload);

// ok if the shape may be stored: a known dtype, not empty, at most kMaxPageBytes.
Status check_shape(const PageShape& shape);

// Checks a stored value against everything known of the page. ok: the payload is what follows the
// header. corruption or version_mismatch say what differs, without naming the page.
Status check_page_value(std::span<const std::byte> value, const PageId& id, const PageShape& shape,
                        std::uint64_t commit, const Digest& digest);

}  // namespace perennial::storage
