// SPDX-License-Identifier: Apache-2.0
// Encoding and decoding of commit records.
#include "record.h"

#include "byte_codec.h"
#include "page_codec.h"
#include "text.h"

namespace perennial::storage {
namespace {

constexpr std::string_view kMagic = "PRNLRECD";
constexpr std::size_t kIdBytes = 16;
constexpr std::size_t kListedBytes = kIdBytes + 8 + 16;  // id, shape, digest
constexpr std::size_t kChunkRefBytes = 16 + 8;
constexpr std::size_t kDigestBytes = 16;

// dtype shares the id's first word with the kind.
void put_id(ByteWriter& out, const PageId& id, DType dtype) {
  out.u8(static_cast<std::uint8_t>(id.kind));
  out.u8(static_cast<std::uint8_t>(dtype));
  out.u8(0);
  out.u8(0);
  out.u32(id.pool);
  out.u32(id.row);
  out.u32(id.tile);
}

struct DecodedId {
  PageId id;
  DType dtype = DType::f32;
  bool ok = false;
};

DecodedId get_id(ByteReader& in) {
  DecodedId result;
  const std::uint8_t kind = in.u8();
  const std::uint8_t dtype = in.u8();
  const std::uint8_t zeros = in.u8() | in.u8();
  result.id.kind = static_cast<PageKind>(kind);
  result.dtype = static_cast<DType>(dtype);
  result.id.pool = in.u32();
  result.id.row = in.u32();
  result.id.tile = in.u32();
  result.ok = in.ok() && kind <= 1 && dtype == 0 && zeros == 0;
  return result;
}

void put_listed(ByteWriter& out, const ListedPage& page) {
  put_id(out, page.id, page.entry.shape.dtype);
  out.u32(page.entry.shape.experts);
  out.u32(page.entry.shape.record_floats);
  out.digest(page.entry.digest);
}

bool get_listed(ByteReader& in, ListedPage& page) {
  const DecodedId id = get_id(in);
  page.id = id.id;
  page.entry.shape.dtype = id.dtype;
  page.entry.shape.experts = in.u32();
  page.entry.shape.record_floats = in.u32();
  page.entry.digest = in.digest();
  return id.ok && in.ok() && check_shape(page.entry.shape).ok();
}

// Appends `count` pages, strictly ascending; their commit follows each one if `with_commit`.
bool get_pages(ByteReader& in, std::uint64_t commit, bool with_commit,
               std::vector<ListedPage>& pages) {
  const std::uint64_t count = in.count(kListedBytes + (with_commit ? 8 : 0));
  pages.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    ListedPage page;
    if (!get_listed(in, page)) return false;
    page.entry.commit = with_commit ? in.u64() : commit;
    if (page.entry.commit == 0 || page.entry.commit > commit) return false;
    if (!pages.empty() && !(pages.back().id < page.id)) return false;
    pages.push_back(page);
  }
  return in.ok();
}

bool get_dense(ByteReader& in, std::uint64_t commit, DenseTable& dense) {
  const std::uint64_t count = in.count(4 + 8 + 8);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string name = in.text();
    DenseEntry entry;
    entry.size = in.u64();
    const std::uint64_t chunks = in.count(kChunkRefBytes);
    if (!in.ok() || name.empty()) return false;
    if (!dense.empty() && !(dense.rbegin()->first < name)) return false;
    if (chunks != entry.size / kChunkBytes + (entry.size % kChunkBytes != 0 ? 1 : 0)) return false;
    entry.chunks.reserve(chunks);
    for (std::uint64_t c = 0; c < chunks; ++c) {
      ChunkRef chunk;
      chunk.digest = in.digest();
      chunk.commit = in.u64();
      if (chunk.commit == 0 || chunk.commit > commit) return false;
      entry.chunks.push_back(chunk);
    }
    dense.emplace(name, std::move(entry));
  }
  return in.ok();
}

}  // namespace

Bytes encode_record(const Record& record) {
  ByteWriter out;
  out.reserve(256 + record.info.note.size() + record.pages.size() * kListedBytes +
              record.removed.size() * kIdBytes + record.table.size() * (kListedBytes + 8));
  out.raw(std::as_bytes(std::span(kMagic)));
  out.u32(kRecordFormatVersion);
  out.u32(record.full ? 1 : 0);
  out.u64(record.info.commit);
  out.u64(record.info.parent);
  out.u64(static_cast<std::uint64_t>(record.info.unix_ms));
  out.digest(record.info.state_digest);
  out.u64(record.info.pages_listed);
  out.u64(record.info.bytes_written);
  out.text(record.info.snapshot);
  out.text(record.info.note);
  out.u64(record.pages.size());
  for (const ListedPage& page : record.pages) put_listed(out, page);
  out.u64(record.removed.size());
  for (const PageId& id : record.removed) put_id(out, id, DType::f32);
  out.u64(record.dense.size());
  for (const auto& [name, entry] : record.dense) {
    out.text(name);
    out.u64(entry.size);
    out.u64(entry.chunks.size());
    for (const ChunkRef& chunk : entry.chunks) {
      out.digest(chunk.digest);
      out.u64(chunk.commit);
    }
  }
  if (record.full) {
    out.u64(record.table.size());
    for (const ListedPage& page : record.table) {
      put_listed(out, page);
      out.u64(page.entry.commit);
    }
    out.u64(record.snapshots.size());
    for (const auto& [name, commit] : record.snapshots) {
      out.text(name);
      out.u64(commit);
    }
  }
  out.digest(digest_of(out.bytes()));
  return out.take();
}

Result<Record> decode_record(std::span<const std::byte> bytes, std::uint64_t expected_commit) {
  const Status malformed =
      error(StatusCode::corruption, "record of commit ", expected_commit, " is malformed");
  if (bytes.size() < kMagic.size() + kDigestBytes ||
      std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return malformed;
  }
  ByteReader tail(bytes.last(kDigestBytes));
  const auto body = bytes.first(bytes.size() - kDigestBytes);
  const Digest stored = tail.digest();
  if (const Digest found = digest_of(body); found != stored) {
    return error(StatusCode::corruption, "record of commit ", expected_commit, ": expected digest ",
                 stored.hex(), ", found ", found.hex());
  }
  ByteReader in(body.subspan(kMagic.size()));
  if (const std::uint32_t version = in.u32(); version != kRecordFormatVersion) {
    return error(StatusCode::version_mismatch, "record of commit ", expected_commit, " has format ",
                 version, ", this program reads ", kRecordFormatVersion);
  }
  Record record;
  const std::uint32_t flags = in.u32();
  record.full = (flags & 1) != 0;
  CommitInfo& info = record.info;
  info.commit = in.u64();
  if (in.ok() && info.commit != expected_commit) {
    return error(StatusCode::corruption, "expected the record of commit ", expected_commit,
                 ", found that of commit ", info.commit);
  }
  info.parent = in.u64();
  info.unix_ms = static_cast<std::int64_t>(in.u64());
  info.state_digest = in.digest();
  info.pages_listed = in.u64();
  info.bytes_written = in.u64();
  info.snapshot = in.text();
  info.note = in.text();
  if (!in.ok() || flags > 1 || info.commit == 0 || info.parent >= info.commit) return malformed;
  if (!record.full && info.parent + 1 != info.commit) return malformed;
  if (!get_pages(in, info.commit, false, record.pages)) return malformed;
  const std::uint64_t removed = in.count(kIdBytes);
  for (std::uint64_t i = 0; i < removed; ++i) {
    const DecodedId id = get_id(in);
    if (!id.ok) return malformed;
    record.removed.push_back(id.id);
  }
  if (!in.ok() || !get_dense(in, info.commit, record.dense)) return malformed;
  if (record.full) {
    if (!get_pages(in, info.commit, true, record.table)) return malformed;
    const std::uint64_t names = in.count(4 + 8);
    for (std::uint64_t i = 0; i < names; ++i) {
      const std::string name = in.text();
      const std::uint64_t commit = in.u64();
      if (!in.ok() || commit == 0 || commit > info.commit) return malformed;
      if (!record.snapshots.empty() && !(record.snapshots.rbegin()->first < name)) return malformed;
      record.snapshots.emplace_hint(record.snapshots.end(), name, commit);
    }
  }
  if (!in.ok() || in.remaining() != 0) return malformed;
  info.pages_written = record.pages.size();
  info.pages_removed = record.removed.size();
  return record;
}

}  // namespace perennial::storage
