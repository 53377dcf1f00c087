// SPDX-License-Identifier: Apache-2.0
// Encoding and decoding of commit records.
#include "record.h"

#include <set>

#include "byte_codec.h"
#include "page_codec.h"
#include "text.h"

namespace perennial::storage {
namespace {

constexpr std::string_view kRecordMagic = "PRNLRECD";
constexpr std::size_t kIdBytes = 16;
constexpr std::size_t kListedBytes = kIdBytes + 8 + 16 + 16;  // id, shape, digest, base, changed
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
  result.ok = in.ok() && kind <= 1 && dtype <= 1 && zeros == 0;
  return result;
}

void put_listed(ByteWriter& out, const ListedPage& page) {
  put_id(out, page.id, page.entry.shape.dtype);
  out.u32(page.entry.shape.experts);
  out.u32(page.entry.shape.record_floats);
  out.digest(page.entry.digest);
  out.u64(page.entry.base);
  out.u64(page.entry.changed);
}

bool get_listed(ByteReader& in, ListedPage& page) {
  const DecodedId id = get_id(in);
  page.id = id.id;
  page.entry.shape.dtype = id.dtype;
  page.entry.shape.experts = in.u32();
  page.entry.shape.record_floats = in.u32();
  page.entry.digest = in.digest();
  page.entry.base = in.u64();
  page.entry.changed = in.u64();
  if (!id.ok || !in.ok() || !check_shape(page.entry.shape).ok()) return false;
  return page.entry.is_delta() ? is_delta_of(page.entry.changed, page.entry.shape)
                               : page.entry.changed == 0;
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
    if (page.entry.base >= page.entry.commit) return false;
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

bool get_catalog(ByteReader& in, std::uint64_t commit, Catalog& catalog) {
  const std::uint64_t count = in.count(8 + 8 + 4);
  std::set<std::string> names;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t listed = in.u64();
    CatalogEntry entry;
    entry.unix_ms = static_cast<std::int64_t>(in.u64());
    entry.snapshot = in.text();
    if (!in.ok() || listed == 0 || listed > commit) return false;
    if (!catalog.empty() && listed <= catalog.rbegin()->first) return false;
    if (!entry.snapshot.empty() && !names.insert(entry.snapshot).second) return false;
    catalog.emplace_hint(catalog.end(), listed, std::move(entry));
  }
  return in.ok() && catalog.contains(commit);
}

bool get_dropped(ByteReader& in, std::uint64_t commit, std::vector<std::uint64_t>& dropped) {
  const std::uint64_t count = in.count(8);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t listed = in.u64();
    if (listed == 0 || listed >= commit) return false;
    if (!dropped.empty() && listed <= dropped.back()) return false;
    dropped.push_back(listed);
  }
  return in.ok();
}

}  // namespace

Bytes encode_record(const Record& record) {
  ByteWriter out;
  out.reserve(256 + record.info.note.size() + record.pages.size() * kListedBytes +
              record.removed.size() * kIdBytes + record.table.size() * (kListedBytes + 8));
  out.raw(std::as_bytes(std::span(kRecordMagic)));
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
  out.digest(record.identity.origin);
  out.u32(record.retention.keep_last);
  out.u32(record.retention.hourly);
  out.u32(record.retention.daily);
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
  out.u64(record.dropped.size());
  for (const std::uint64_t commit : record.dropped) out.u64(commit);
  if (record.full) {
    out.u64(record.table.size());
    for (const ListedPage& page : record.table) {
      put_listed(out, page);
      out.u64(page.entry.commit);
    }
    out.u64(record.catalog.size());
    for (const auto& [commit, entry] : record.catalog) {
      out.u64(commit);
      out.u64(static_cast<std::uint64_t>(entry.unix_ms));
      out.text(entry.snapshot);
    }
  }
  out.digest(digest_of(out.bytes()));
  return out.take();
}

Result<Record> decode_record(std::span<const std::byte> bytes, std::uint64_t expected_commit) {
  const Status malformed =
      error(StatusCode::corruption, "record of commit ", expected_commit, " is malformed");
  if (bytes.size() < kRecordMagic.size() + kDigestBytes ||
      std::memcmp(bytes.data(), kRecordMagic.data(), kRecordMagic.size()) != 0) {
    return malformed;
  }
  ByteReader tail(bytes.last(kDigestBytes));
  const auto body = bytes.first(bytes.size() - kDigestBytes);
  const Digest stored = tail.digest();
  if (const Digest found = digest_of(body); found != stored) {
    return error(StatusCode::corruption, "record of commit ", expected_commit, ": expected digest ",
                 stored.hex(), ", found ", found.hex());
  }
  ByteReader in(body.subspan(kRecordMagic.size()));
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
  record.identity.origin = in.digest();
  record.retention.keep_last = in.u32();
  record.retention.hourly = in.u32();
  record.retention.daily = in.u32();
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
  if (!get_dropped(in, info.commit, record.dropped)) return malformed;
  if (record.full) {
    if (!get_pages(in, info.commit, true, record.table)) return malformed;
    if (!get_catalog(in, info.commit, record.catalog)) return malformed;
  }
  if (!in.ok() || in.remaining() != 0) return malformed;
  info.pages_written = record.pages.size();
  info.pages_removed = record.removed.size();
  return record;
}

}  // namespace perennial::storage
