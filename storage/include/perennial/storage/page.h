// SPDX-License-Identifier: Apache-2.0
// Pages: their ids, shapes and the header that travels with every stored page.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace perennial::storage {

enum class PageKind : std::uint8_t {
  weights = 0,  // expert weights
  state = 1,    // optimizer state of the same experts; dropped when their generation freezes
};

// Names one page for ever: growth renumbers nothing. Ordered as its key in the store is.
struct PageId {
  PageKind kind = PageKind::weights;
  std::uint32_t pool = 0;
  std::uint32_t row = 0;
  std::uint32_t tile = 0;
  auto operator<=>(const PageId&) const = default;
};

// "weights page pool 0 row 7 tile 1"
std::string to_string(const PageId& id);

enum class DType : std::uint8_t { f32 = 0, bf16 = 1 };
constexpr std::size_t element_bytes(DType dtype) { return dtype == DType::bf16 ? 2 : 4; }

// What a page's payload holds: `experts` records of `record_floats` elements each.
struct PageShape {
  DType dtype = DType::f32;
  std::uint32_t experts = 0;
  std::uint32_t record_floats = 0;
  bool operator==(const PageShape&) const = default;
  std::size_t payload_bytes() const {
    return std::size_t{experts} * record_floats * element_bytes(dtype);
  }
};

// Largest payload a store accepts, in bytes.
inline constexpr std::size_t kMaxPageBytes = std::size_t{4} << 20;

}  // namespace perennial::storage
