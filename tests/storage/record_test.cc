// SPDX-License-Identifier: Apache-2.0
// Keys, page headers and records: exact bytes, round trips, and decoding of hostile bytes.
#include "record.h"

#include <xxhash.h>

#include "byte_codec.h"
#include "keys.h"
#include "page_codec.h"
#include "store_testing.h"

namespace perennial::storage::testing {
namespace {

std::string hex(std::string_view text) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char c : text) {
    out.push_back(kDigits[static_cast<unsigned char>(c) >> 4]);
    out.push_back(kDigits[static_cast<unsigned char>(c) & 15]);
  }
  return out;
}

Record sample(bool full) {
  Record record;
  record.info.commit = 300;
  record.info.parent = full ? 7 : 299;
  record.info.snapshot = "best";
  record.info.note = "a note";
  record.info.unix_ms = 1'700'000'000'123;
  record.info.state_digest = digest_of(bytes_of(1, 10));
  record.info.pages_listed = 2;
  record.info.bytes_written = 512;
  record.identity.origin = digest_of(bytes_of(6, 10));
  record.retention = {.keep_last = 5, .hourly = 24, .daily = 7};
  record.pages = {
      {weights(1, 2), {shape_of(4, 16), digest_of(bytes_of(2, 10)), 300, 250, 0b0101}},
      {{PageKind::state, 3, 1, 2}, {shape_of(4, 33), digest_of(bytes_of(3, 10)), 300, 0, 0}}};
  record.removed = {weights(9, 9)};
  record.dense["empty"] = {};
  record.dense["router"] = {kChunkBytes + 5,
                            {{digest_of(bytes_of(4, 10)), 12}, {digest_of(bytes_of(5, 10)), 300}}};
  record.dropped = {3, 299};
  record.full = full;
  if (full) {
    record.table = record.pages;
    record.table[0].entry.commit = 5;
    record.table[0].entry.base = 2;
    record.catalog = {{1, {1'600'000'000'000, "first"}},
                      {7, {1'650'000'000'000, ""}},
                      {300, {1'700'000'000'123, "best"}}};
  }
  return record;
}

TEST(Keys, HaveTheBytesOfTheFormat) {
  EXPECT_EQ(hex(record_key(0x0102030405060708)), "4501020304050607085a");
  EXPECT_EQ(hex(page_key(1, {PageKind::state, 2, 0x10203, 4})),
            "450000000000000001"
            "57"
            "01"
            "00000002"
            "00010203"
            "00000004");
  Digest digest;
  digest.bytes[0] = 0xab;
  EXPECT_EQ(hex(chunk_key(1, digest)), "45000000000000000144ab000000000000000000000000000000");
}

TEST(Keys, SortChunksThenPagesThenTheRecordThenTheNextCommit) {
  Digest largest;
  largest.bytes.fill(0xff);
  EXPECT_LT(chunk_key(5, largest), page_key(5, weights(0, 0)));
  EXPECT_LT(page_key(5, weights(0, 9)), page_key(5, weights(1, 0)));
  EXPECT_LT(page_key(5, weights(255, 0)), page_key(5, weights(256, 0)));
  EXPECT_LT(page_key(5, {PageKind::state, ~0u, ~0u, ~0u}), record_key(5));
  EXPECT_LT(record_key(255), chunk_key(256, Digest()));
  EXPECT_EQ(commit_of_key(record_key(77)), 77u);
  EXPECT_EQ(commit_of_key(""), std::nullopt);
  EXPECT_EQ(commit_of_key("E1234567"), std::nullopt);
  EXPECT_EQ(commit_of_key("X12345678Z"), std::nullopt);
}

TEST(PageHeader, HasTheBytesOfTheFormat) {
  const PageEntry entry{shape_of(2, 2), {}, 5, 4, 2};
  Digest body;
  body.bytes.fill(0xab);
  const PageHeader header = encode_page_header({PageKind::state, 2, 3, 4}, entry, body);
  const std::string text(reinterpret_cast<const char*>(header.data()), header.size());
  EXPECT_EQ(hex(text.substr(0, 60)),
            "50524e50"
            "02000100"
            "02000000"
            "02000000"
            "02000000"
            "03000000"
            "04000000"
            "abababababababab"
            "0500000000000000"
            "0400000000000000"
            "0200000000000000");
  EXPECT_EQ(hex(text.substr(60)), "1b46c48b");
}

TEST(PageHeader, EveryFlippedByteIsFound) {
  const PageId id = weights(3, 4);
  for (const bool is_delta : {false, true}) {
    const Bytes payload = bytes_of(1, shape_of(4, 8).payload_bytes());
    const PageEntry entry{shape_of(4, 8), digest_of(payload), 5, is_delta ? 3u : 0u,
                          is_delta ? 0b0110u : 0u};
    const Bytes body = is_delta ? encode_delta(entry, payload) : payload;
    ASSERT_EQ(body.size(), stored_bytes(entry));
    const PageHeader header = encode_page_header(id, entry, digest_of(body));
    Bytes value(header.begin(), header.end());
    value.insert(value.end(), body.begin(), body.end());
    const auto check = [&](std::span<const std::byte> bytes, const PageId& page,
                           const PageEntry& expected) {
      Digest digest;
      return check_page_value(bytes, page, expected, digest).status().code();
    };
    ASSERT_EQ(check(value, id, entry), StatusCode::ok);
    for (std::size_t at = 0; at < value.size(); ++at) {
      Bytes damaged = value;
      damaged[at] ^= std::byte{0x10};
      EXPECT_EQ(check(damaged, id, entry), StatusCode::corruption) << at;
      EXPECT_NE(check(std::span(value).first(at), id, entry), StatusCode::ok) << at;
    }
    EXPECT_NE(check(value, weights(3, 5), entry), StatusCode::ok);
    PageEntry other = entry;
    other.shape = shape_of(8, 4);
    EXPECT_NE(check(value, id, other), StatusCode::ok);
    other = entry;
    other.commit = 6;
    EXPECT_NE(check(value, id, other), StatusCode::ok);
    other = entry;
    other.base = is_delta ? 2 : 1;
    other.changed = is_delta ? 0b0110 : 0b1111;
    EXPECT_NE(check(value, id, other), StatusCode::ok);
  }
}

TEST(Delta, HoldsTheChangedExpertsAndNoOthers) {
  const Bytes before = bytes_of(1, 4 * 8);
  const Bytes after = bytes_of(2, 4 * 8);
  const PageEntry entry{shape_of(4, 2), {}, 5, 3, 0b1010};
  Bytes payload = before;
  apply_delta(entry, encode_delta(entry, after), payload);
  for (std::size_t i = 0; i < payload.size(); ++i) {
    EXPECT_EQ(payload[i], (i / 8) % 2 == 1 ? after[i] : before[i]) << i;
  }
}

TEST(Delta, PaysForAThirdOfAPageOfAtMost64Experts) {
  EXPECT_TRUE(delta_pays(0b11, shape_of(6, 4)));
  EXPECT_FALSE(delta_pays(0b111, shape_of(6, 4)));
  EXPECT_FALSE(delta_pays(0, shape_of(6, 4)));
  EXPECT_FALSE(delta_pays(0b1000000, shape_of(6, 4)));  // an expert that does not exist
  EXPECT_TRUE(delta_pays(std::uint64_t{1} << 63, shape_of(64, 4)));
  EXPECT_FALSE(delta_pays(1, shape_of(65, 4)));
}

TEST(Record, RoundTrips) {
  for (const bool full : {false, true}) {
    const Record record = sample(full);
    const Bytes bytes = encode_record(record);
    const Result<Record> found = decode_record(bytes, 300);
    ASSERT_TRUE(found.ok()) << found.status().to_string();
    EXPECT_TRUE(encode_record(*found) == bytes);
    EXPECT_EQ(found->info.parent, record.info.parent);
    EXPECT_EQ(found->info.snapshot, "best");
    EXPECT_EQ(found->info.note, "a note");
    EXPECT_EQ(found->info.unix_ms, 1'700'000'000'123);
    EXPECT_EQ(found->info.pages_written, 2u);
    EXPECT_EQ(found->info.pages_removed, 1u);
    EXPECT_EQ(found->pages[1].id, (PageId{PageKind::state, 3, 1, 2}));
    EXPECT_EQ(found->dense.at("router").chunks[0].commit, 12u);
    EXPECT_EQ(found->table.size(), full ? 2u : 0u);
    EXPECT_EQ(found->catalog, record.catalog);
    EXPECT_EQ(found->dropped, record.dropped);
    EXPECT_EQ(found->retention, record.retention);
    EXPECT_EQ(found->identity, record.identity);
    EXPECT_EQ(found->pages[0].entry.base, 250u);
    EXPECT_EQ(found->pages[0].entry.changed, 0b0101u);
  }
}

// Format 2, for good: a change of these bytes needs a new version and a reader of the old one.
TEST(Record, HasTheBytesOfTheFormat) {
  EXPECT_EQ(digest_of(encode_record(sample(false))).hex(), "42c5bc50e693af619b72d9fcf395935f");
  EXPECT_EQ(digest_of(encode_record(sample(true))).hex(), "d2510d96674503351b8a03aa9836cb7f");
}

TEST(Record, EveryFlipAndEveryCutIsFound) {
  const Bytes bytes = encode_record(sample(true));
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    Bytes damaged = bytes;
    damaged[at] ^= std::byte{1};
    EXPECT_EQ(decode_record(damaged, 300).status().code(), StatusCode::corruption) << at;
    EXPECT_EQ(decode_record(std::span(bytes).first(at), 300).status().code(),
              StatusCode::corruption)
        << at;
  }
  EXPECT_EQ(decode_record(bytes, 301).status().code(), StatusCode::corruption);
}

// With a digest that fits, so that every field meets every extreme value: no crash, no allocation
// beyond the record, and what is accepted encodes again.
TEST(Record, HostileFieldsAreRefusedOrHarmless) {
  int refused = 0;
  for (const bool full : {false, true}) {
    const Bytes bytes = encode_record(sample(full));
    const std::size_t body = bytes.size() - 16;
    for (std::size_t at = 12; at + 8 <= body; ++at) {
      for (const std::uint64_t value : {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{1} << 60,
                                        std::uint64_t{0xffffffff}, std::uint64_t{1} << 31}) {
        Bytes hostile = bytes;
        for (std::size_t i = 0; i < 8; ++i) hostile[at + i] = std::byte(value >> (8 * i));
        const Digest digest = digest_of(std::span(hostile).first(body));
        std::memcpy(hostile.data() + body, digest.bytes.data(), 16);
        const Result<Record> found = decode_record(hostile, 300);
        if (found.ok()) {
          EXPECT_TRUE(encode_record(*found) == hostile) << at;
        } else {
          ++refused;
        }
      }
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST(Record, ANewerFormatIsAVersionMismatch) {
  Bytes bytes = encode_record(sample(false));
  bytes[8] = std::byte{3};
  const std::size_t body = bytes.size() - 16;
  const Digest digest = digest_of(std::span(bytes).first(body));
  std::memcpy(bytes.data() + body, digest.bytes.data(), 16);
  EXPECT_EQ(decode_record(bytes, 300).status().code(), StatusCode::version_mismatch);
}

}  // namespace
}  // namespace perennial::storage::testing
