// SPDX-License-Identifier: Apache-2.0
// 128-bit XXH3 digests of pages, chunks, shards and states.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace perennial::storage {

// XXH3-128 in canonical (big-endian) byte order.
struct Digest {
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const Digest&) const = default;
  std::string hex() const;  // 32 lower-case digits
};

Digest digest_of(std::span<const std::byte> bytes);

// Streaming XXH3-128: the digest of everything updated so far, in order. Integers are hashed as
// little-endian bytes, strings with their length first.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  Hasher& update(std::span<const std::byte> bytes);
  Hasher& update(const Digest& digest);
  Hasher& update(std::uint64_t value);
  Hasher& update(std::string_view text);
  Digest finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace perennial::storage
