// SPDX-License-Identifier: Apache-2.0
// Digests against published XXH3 values, and the framing of the hasher.
#include "perennial/storage/digest.h"

#include <gtest/gtest.h>

#include <vector>

namespace perennial::storage {
namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(Digest, OfNothingIsXxh3OfNothing) {
  EXPECT_EQ(digest_of({}).hex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(Hasher().finish().hex(), "99aa06d3014798d86001c324468d497f");
}

TEST(Digest, StreamingEqualsAtOnce) {
  for (const std::size_t size : {1u, 15u, 16u, 17u, 240u, 241u, 1000u, 100'000u}) {
    std::vector<std::byte> data(size);
    for (std::size_t i = 0; i < size; ++i) data[i] = std::byte(i * 31 + 7);
    Hasher hasher;
    for (std::size_t at = 0; at < size; at += 97) {
      hasher.update(std::span(data).subspan(at, std::min<std::size_t>(97, size - at)));
    }
    EXPECT_EQ(hasher.finish(), digest_of(data)) << size;
  }
}

TEST(Digest, IntegersAreLittleEndianAndStringsCarryTheirLength) {
  const std::vector<std::byte> little = {std::byte{0x08}, std::byte{0x07}, std::byte{0x06},
                                         std::byte{0x05}, std::byte{0x04}, std::byte{0x03},
                                         std::byte{0x02}, std::byte{0x01}};
  EXPECT_EQ(Hasher().update(std::uint64_t{0x0102030405060708}).finish(), digest_of(little));
  EXPECT_EQ(Hasher().update(std::string_view("ab")).finish(),
            digest_of(bytes(std::string_view("\2\0\0\0\0\0\0\0ab", 10))));
  EXPECT_NE(Hasher().update(std::string_view("ab")).update(std::string_view("c")).finish(),
            Hasher().update(std::string_view("a")).update(std::string_view("bc")).finish());
}

TEST(Digest, FinishMayBeCalledInBetween) {
  Hasher hasher;
  hasher.update(bytes("ab"));
  EXPECT_EQ(hasher.finish(), digest_of(bytes("ab")));
  hasher.update(bytes("c"));
  EXPECT_EQ(hasher.finish(), digest_of(bytes("abc")));
}

TEST(Digest, OrdersAndPrints) {
  Digest a;
  Digest b;
  b.bytes[15] = 1;
  EXPECT_LT(a, b);
  EXPECT_EQ(b.hex(), "00000000000000000000000000000001");
}

}  // namespace
}  // namespace perennial::storage
