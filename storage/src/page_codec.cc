// SPDX-License-Identifier: Apache-2.0
// Encoding and checking of page headers, and the printed name of a page.
#include "page_codec.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "byte_codec.h"
#include "text.h"

namespace perennial::storage {
namespace {

constexpr std::string_view kMagic = "PRNLPAGE";

}  // namespace

std::string to_string(const PageId& id) {
  return text_of(id.kind == PageKind::weights ? "weights" : "state", " page pool ", id.pool,
                 " row ", id.row, " tile ", id.tile);
}

PageHeader encode_page_header(const PageId& id, const PageShape& shape, std::uint64_t commit,
                              std::span<const std::byte> payload) {
  ByteWriter out;
  out.reserve(kPageHeaderBytes);
  out.raw(std::as_bytes(std::span(kMagic)));
  out.u32(kPageFormatVersion);
  out.u8(static_cast<std::uint8_t>(shape.dtype));
  out.u8(static_cast<std::uint8_t>(id.kind));
  out.u8(0);
  out.u8(0);
  out.u32(shape.experts);
  out.u32(shape.record_floats);
  out.u32(id.pool);
  out.u32(id.row);
  out.u32(id.tile);
  out.u32(static_cast<std::uint32_t>(payload.size()));
  out.u64(commit);
  out.u64(XXH3_64bits(payload.data(), payload.size()));
  out.u64(XXH3_64bits(out.bytes().data(), out.bytes().size()));
  PageHeader header;
  std::copy(out.bytes().begin(), out.bytes().end(), header.begin());
  return header;
}

Status check_shape(const PageShape& shape) {
  if (shape.dtype != DType::f32) {
    return error(StatusCode::invalid_argument, "unknown dtype ", int(shape.dtype));
  }
  const std::uint64_t limit = kMaxPageBytes / sizeof(float);
  if (shape.experts == 0 || shape.record_floats == 0 ||
      std::uint64_t{shape.experts} > limit / shape.record_floats) {
    return error(StatusCode::invalid_argument, shape.experts, " experts of ", shape.record_floats,
                 " floats; a page holds 1 to ", kMaxPageBytes, " bytes");
  }
  return {};
}

Status check_page_value(std::span<const std::byte> value, const PageId& id, const PageShape& shape,
                        std::uint64_t commit, const Digest& digest) {
  if (value.size() < kPageHeaderBytes) {
    return error(StatusCode::corruption, "expected a header of ", kPageHeaderBytes,
                 " bytes, found ", value.size(), " bytes");
  }
  const auto header = value.first(kPageHeaderBytes);
  if (std::memcmp(header.data(), kMagic.data(), kMagic.size()) != 0) {
    return error(StatusCode::corruption, "the header has no page magic");
  }
  ByteReader reader(header.subspan(kMagic.size()));
  const std::uint32_t version = reader.u32();
  ByteReader hash_reader(header.last(8));
  const std::uint64_t header_hash = hash_reader.u64();
  if (header_hash != XXH3_64bits(header.data(), kPageHeaderBytes - 8)) {
    return error(StatusCode::corruption, "the header's digest does not match");
  }
  if (version != kPageFormatVersion) {
    return error(StatusCode::version_mismatch, "page format ", version, ", this program reads ",
                 kPageFormatVersion);
  }
  const auto payload = value.subspan(kPageHeaderBytes);
  if (payload.size() != shape.payload_bytes()) {
    return error(StatusCode::corruption, "expected ", shape.payload_bytes(), " bytes, found ",
                 payload.size());
  }
  const Digest found = digest_of(payload);
  if (found != digest) {
    return error(StatusCode::corruption, "expected payload digest ", digest.hex(), ", found ",
                 found.hex());
  }
  const PageHeader expected = encode_page_header(id, shape, commit, payload);
  if (!std::ranges::equal(expected, header)) {
    return error(StatusCode::corruption, "the header is of another page, shape or commit");
  }
  return {};
}

}  // namespace perennial::storage
