// SPDX-License-Identifier: Apache-2.0
// Encoding and checking of page headers, and the printed name of a page.
#include "page_codec.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "byte_codec.h"
#include "text.h"
#include "xxh3.h"

namespace perennial::storage {
namespace {

constexpr std::string_view kPageMagic = "PRNP";

// Of a header: the low half of XXH3-64 over all but its last 4 bytes.
std::uint32_t check_of(std::span<const std::byte> header) {
  return static_cast<std::uint32_t>(XXH3_64bits(header.data(), header.size()));
}

}  // namespace

std::string to_string(const PageId& id) {
  return text_of(id.kind == PageKind::weights ? "weights" : "state", " page pool ", id.pool,
                 " row ", id.row, " tile ", id.tile);
}

Status check_shape(const PageShape& shape) {
  if (shape.dtype != DType::f32 && shape.dtype != DType::bf16) {
    return error(StatusCode::invalid_argument, "unknown dtype ", int(shape.dtype));
  }
  const std::uint64_t limit = kMaxPageBytes / element_bytes(shape.dtype);
  if (shape.experts == 0 || shape.record_floats == 0 ||
      std::uint64_t{shape.experts} > limit / shape.record_floats) {
    return error(StatusCode::invalid_argument, shape.experts, " experts of ", shape.record_floats,
                 " elements; a page holds 1 to ", kMaxPageBytes, " bytes");
  }
  return {};
}

bool is_delta_of(std::uint64_t changed, const PageShape& shape) {
  return changed != 0 && shape.experts <= 64 &&
         (shape.experts == 64 || changed >> shape.experts == 0);
}

bool delta_pays(std::uint64_t changed, const PageShape& shape) {
  return is_delta_of(changed, shape) &&
         3 * static_cast<std::uint32_t>(std::popcount(changed)) <= shape.experts;
}

std::size_t stored_bytes(const PageEntry& entry) {
  if (!entry.is_delta()) return entry.shape.payload_bytes();
  return entry.shape.payload_bytes() / entry.shape.experts *
         static_cast<std::size_t>(std::popcount(entry.changed));
}

PageHeader encode_page_header(const PageId& id, const PageEntry& entry, const Digest& body) {
  ByteWriter out;
  out.reserve(kPageHeaderBytes);
  out.raw(std::as_bytes(std::span(kPageMagic)));
  out.u8(kPageFormatVersion);
  out.u8(static_cast<std::uint8_t>(entry.shape.dtype));
  out.u8(static_cast<std::uint8_t>(id.kind));
  out.u8(0);
  out.u32(entry.shape.experts);
  out.u32(entry.shape.record_floats);
  out.u32(id.pool);
  out.u32(id.row);
  out.u32(id.tile);
  out.raw(std::as_bytes(std::span(body.bytes)).first(8));
  out.u64(entry.commit);
  out.u64(entry.base);
  out.u64(entry.changed);
  out.u32(check_of(out.bytes()));
  PageHeader header;
  std::copy(out.bytes().begin(), out.bytes().end(), header.begin());
  return header;
}

Bytes encode_delta(const PageEntry& entry, std::span<const std::byte> payload) {
  const std::size_t record = payload.size() / entry.shape.experts;
  Bytes body;
  body.reserve(stored_bytes(entry));
  for (std::uint32_t i = 0; i < entry.shape.experts; ++i) {
    if ((entry.changed >> i & 1) == 0) continue;
    const auto bytes = payload.subspan(i * record, record);
    body.insert(body.end(), bytes.begin(), bytes.end());
  }
  return body;
}

Result<std::span<const std::byte>> check_page_value(std::span<const std::byte> value,
                                                    const PageId& id, const PageEntry& entry,
                                                    Digest& digest) {
  if (value.size() < kPageHeaderBytes) {
    return error(StatusCode::corruption, "expected a header of ", kPageHeaderBytes,
                 " bytes, found ", value.size(), " bytes");
  }
  const auto header = value.first(kPageHeaderBytes);
  if (std::memcmp(header.data(), kPageMagic.data(), kPageMagic.size()) != 0) {
    return error(StatusCode::corruption, "the header has no page magic");
  }
  ByteReader check(header.last(4));
  if (check.u32() != check_of(header.first(kPageHeaderBytes - 4))) {
    return error(StatusCode::corruption, "the header's digest does not match");
  }
  if (const auto version = std::to_integer<std::uint32_t>(header[kPageMagic.size()]);
      version != kPageFormatVersion) {
    return error(StatusCode::version_mismatch, "page format ", version, ", this program reads ",
                 kPageFormatVersion);
  }
  const auto body = value.subspan(kPageHeaderBytes);
  if (body.size() != stored_bytes(entry)) {
    return error(StatusCode::corruption, "expected ", stored_bytes(entry), " bytes, found ",
                 body.size());
  }
  digest = digest_of(body);
  const PageHeader expected = encode_page_header(id, entry, digest);
  if (!std::ranges::equal(expected, header)) {
    constexpr std::size_t kBody = 28;  // the digest's place in the header
    if (std::memcmp(expected.data() + kBody, header.data() + kBody, 8) != 0) {
      return error(StatusCode::corruption, "the bytes do not have the header's digest");
    }
    return error(StatusCode::corruption, "the header is of another page, shape or commit");
  }
  return body;
}

void apply_delta(const PageEntry& entry, std::span<const std::byte> body,
                 std::span<std::byte> payload) {
  const std::size_t record = payload.size() / entry.shape.experts;
  for (std::uint32_t i = 0; i < entry.shape.experts; ++i) {
    if ((entry.changed >> i & 1) == 0) continue;
    std::ranges::copy(body.first(record), payload.subspan(i * record, record).begin());
    body = body.subspan(record);
  }
}

}  // namespace perennial::storage
