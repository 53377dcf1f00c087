// SPDX-License-Identifier: Apache-2.0
// Little-endian encoding of records, and decoding that checks every length before it is used.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "perennial/storage/digest.h"
#include "perennial/storage/page_store.h"

namespace perennial::storage {

class ByteWriter {
 public:
  void u8(std::uint8_t value) { bytes_.push_back(std::byte(value)); }
  void u32(std::uint32_t value) { little(value, 4); }
  void u64(std::uint64_t value) { little(value, 8); }
  void raw(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void digest(const Digest& value) { raw(std::as_bytes(std::span(value.bytes))); }
  // Length (u32) and bytes.
  void text(std::string_view value) {
    u32(static_cast<std::uint32_t>(value.size()));
    raw(std::as_bytes(std::span(value)));
  }
  void reserve(std::size_t bytes) { bytes_.reserve(bytes); }
  const Bytes& bytes() const { return bytes_; }
  Bytes take() { return std::move(bytes_); }

 private:
  void little(std::uint64_t value, int size) {
    for (int i = 0; i < size; ++i) bytes_.push_back(std::byte(value >> (8 * i)));
  }
  Bytes bytes_;
};

// A read past the end returns zeros and makes ok() false for good.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  bool ok() const { return ok_; }
  std::size_t remaining() const { return rest_.size(); }
  std::uint8_t u8() { return static_cast<std::uint8_t>(little(1)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(little(4)); }
  std::uint64_t u64() { return little(8); }
  std::span<const std::byte> raw(std::uint64_t size) {
    if (!ok_ || size > rest_.size()) {
      ok_ = false;
      return {};
    }
    const auto bytes = rest_.first(static_cast<std::size_t>(size));
    rest_ = rest_.subspan(static_cast<std::size_t>(size));
    return bytes;
  }
  Digest digest() {
    Digest value;
    const auto bytes = raw(value.bytes.size());
    if (!bytes.empty()) std::memcpy(value.bytes.data(), bytes.data(), bytes.size());
    return value;
  }
  std::string text() {
    const auto bytes = raw(u32());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  // A count of entries of at least `entry_bytes` each: refused if so many cannot follow.
  std::uint64_t count(std::size_t entry_bytes) {
    const std::uint64_t value = u64();
    if (value > rest_.size() / entry_bytes) ok_ = false;
    return ok_ ? value : 0;
  }

 private:
  std::uint64_t little(std::size_t size) {
    std::uint64_t value = 0;
    const auto bytes = raw(size);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      value |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
    }
    return value;
  }
  std::span<const std::byte> rest_;
  bool ok_ = true;
};

}  // namespace perennial::storage
