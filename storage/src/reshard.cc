// SPDX-License-Identifier: Apache-2.0
// reshard: checks that parts make a whole, cuts rows into ranges, and commits one part each.
#include "perennial/storage/reshard.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

#include "state_table.h"
#include "text.h"

namespace perennial::storage {
namespace {

struct Part {
  std::uint64_t index = 0;
  std::uint64_t count = 1;
  std::string state;  // hexadecimal digest of the whole
};

Result<Part> part_of(const PageReader& reader) {
  const Result<CommitInfo> head = reader.head();
  if (!head.ok()) {
    return error(StatusCode::invalid_argument, reader.location(), " is empty: nothing to reshard");
  }
  const Result<Bytes> bytes = reader.read_dense(kPartEntry);
  if (bytes.status().code() == StatusCode::not_found) return Part{0, 1, head->state_digest.hex()};
  if (!bytes.ok()) return bytes.status();
  std::istringstream text(std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()));
  Part part;
  text >> part.index >> part.count >> part.state;
  if (!text || part.index >= part.count || part.state.size() != 32) {
    return error(StatusCode::corruption, reader.location(), ": the entry '", kPartEntry,
                 "' is malformed");
  }
  return part;
}

// The sources in the order of their parts.
Result<std::pair<std::vector<const PageReader*>, std::string>> whole_of(
    const std::vector<const PageReader*>& from) {
  std::map<std::uint64_t, const PageReader*> parts;
  Part first;
  for (const PageReader* reader : from) {
    const Result<Part> part = part_of(*reader);
    if (!part.ok()) return part.status();
    if (parts.empty()) first = *part;
    if (part->count != first.count || part->state != first.state) {
      return error(StatusCode::invalid_argument, reader->location(), " is part of another state (",
                   part->state, ", not ", first.state, ")");
    }
    if (!parts.emplace(part->index, reader).second) {
      return error(StatusCode::invalid_argument, reader->location(), ": part ", part->index + 1,
                   " of ", part->count, " was given twice");
    }
  }
  if (parts.empty()) return error(StatusCode::invalid_argument, "no store to reshard was given");
  if (parts.size() != first.count) {
    return error(StatusCode::invalid_argument, parts.size(), " of ", first.count,
                 " parts were given");
  }
  std::vector<const PageReader*> readers;
  for (const auto& [index, reader] : parts) {
    for (const std::string& name :
         readers.empty() ? std::vector<std::string>() : readers[0]->dense_names()) {
      if (name == kPartEntry) continue;
      const Result<Digest> a = readers[0]->dense_digest(name);
      const Result<Digest> b = reader->dense_digest(name);
      if (!a.ok() || !b.ok() || *a != *b) {
        return error(StatusCode::invalid_argument, reader->location(), ": the dense entry '", name,
                     "' is not that of part 1; a part was changed by itself");
      }
    }
    readers.push_back(reader);
  }
  return std::pair(std::move(readers), first.state);
}

struct Source {
  PageId id;
  const PageReader* reader;
};

// All pages, rows together.
Result<std::vector<Source>> list_pages(const std::vector<const PageReader*>& readers) {
  std::vector<Source> pages;
  for (const PageReader* reader : readers) {
    for (const PageId& id : reader->pages()) pages.push_back({id, reader});
  }
  const auto by_row = [](const Source& s) {
    return std::tuple(s.id.pool, s.id.row, s.id.kind, s.id.tile);
  };
  std::ranges::sort(pages, {}, by_row);
  const auto twice = std::ranges::adjacent_find(pages, {}, &Source::id);
  if (twice != pages.end()) {
    return error(StatusCode::invalid_argument, to_string(twice->id), " is in more than one part");
  }
  return pages;
}

// The digest that the whole has if every part is as it was cut.
Result<Digest> digest_of_whole(const PageReader& first, const std::vector<Source>& pages) {
  StateTable::Builder table;
  for (const Source& source : pages) {
    const Result<PageShape> shape = source.reader->page_shape(source.id);
    if (!shape.ok()) return shape.status();
    const Result<Digest> digest = source.reader->page_digest(source.id);
    if (!digest.ok()) return digest.status();
    table.set(source.id, {*shape, *digest, 1, 0, 0});
  }
  DenseTable dense;
  for (const std::string& name : first.dense_names()) {
    if (name == kPartEntry) continue;
    const Result<Bytes> bytes = first.read_dense(name);
    if (!bytes.ok()) return bytes.status();
    DenseEntry entry;
    entry.size = bytes->size();
    for (std::size_t at = 0; at < bytes->size(); at += kChunkBytes) {
      const std::size_t size = std::min(kChunkBytes, bytes->size() - at);
      entry.chunks.push_back({digest_of(std::span(*bytes).subspan(at, size)), 1});
    }
    dense.emplace(name, std::move(entry));
  }
  table.set_dense(std::move(dense));
  return table.build().digest();
}

struct Whole {
  std::vector<const PageReader*> readers;  // in the order of their parts
  std::string state;
  std::vector<Source> pages;
};

Result<Whole> check_whole(const std::vector<const PageReader*>& from) {
  auto ordered = whole_of(from);
  if (!ordered.ok()) return ordered.status();
  Result<std::vector<Source>> pages = list_pages(ordered->first);
  if (!pages.ok()) return pages.status();
  const Result<Digest> digest = digest_of_whole(*ordered->first[0], *pages);
  if (!digest.ok()) return digest.status();
  if (digest->hex() != ordered->second) {
    return error(StatusCode::invalid_argument, "the parts were cut from state ", ordered->second,
                 " and make ", digest->hex(), ": one of them was changed since");
  }
  return Whole{std::move(ordered->first), std::move(ordered->second), std::move(*pages)};
}

// Where the parts end, in `pages`: about equal, never within a row.
std::vector<std::size_t> cut(const std::vector<Source>& pages, std::size_t parts) {
  std::vector<std::size_t> ends;
  std::size_t at = 0;
  for (std::size_t part = 1; part <= parts; ++part) {
    at = std::max(at, pages.size() * part / parts);
    while (at > 0 && at < pages.size() && pages[at - 1].id.pool == pages[at].id.pool &&
           pages[at - 1].id.row == pages[at].id.row) {
      ++at;
    }
    ends.push_back(at);
  }
  return ends;
}

}  // namespace

Result<std::string> check_parts(const std::vector<const PageReader*>& from) {
  Result<Whole> whole = check_whole(from);
  if (!whole.ok()) return whole.status();
  return std::move(whole->state);
}

Result<ReshardReport> reshard(const std::vector<const PageReader*>& from,
                              const std::vector<PageStore*>& to, const ReshardOptions& options) {
  if (to.empty()) return error(StatusCode::invalid_argument, "no store to write to was given");
  std::set<const PageReader*> distinct(from.begin(), from.end());
  for (PageStore* store : to) {
    if (store->head().ok() || !distinct.insert(store).second) {
      return error(StatusCode::invalid_argument, store->location(),
                   ": a store to write to must be empty, and given once");
    }
  }
  Result<Whole> whole = check_whole(from);
  if (!whole.ok()) return whole.status();
  auto& [readers, state, pages] = *whole;
  const std::vector<std::size_t> ends = cut(pages, to.size());

  CommitRequest dense;
  for (const std::string& name : readers[0]->dense_names()) {
    if (name == kPartEntry) continue;
    Result<Bytes> bytes = readers[0]->read_dense(name);
    if (!bytes.ok()) return bytes.status();
    dense.dense.emplace(name, std::move(*bytes));
  }
  dense.identity = readers[0]->identity();
  dense.note = readers[0]->head()->note;

  ReshardReport report;
  report.state_digest = state;
  Bytes payload;
  std::uint64_t done = 0;
  for (std::size_t part = 0, begin = 0; part < to.size(); begin = ends[part++]) {
    CommitRequest request = dense;
    if (to.size() > 1) {
      const std::string text = text_of(part, " ", to.size(), " ", state);
      const auto bytes = std::as_bytes(std::span(text));
      request.dense[kPartEntry] = Bytes(bytes.begin(), bytes.end());
    }
    std::sort(pages.begin() + static_cast<std::ptrdiff_t>(begin),
              pages.begin() + static_cast<std::ptrdiff_t>(ends[part]),
              [](const Source& a, const Source& b) { return a.id < b.id; });
    for (std::size_t i = begin; i < ends[part]; ++i) {
      const Source& source = pages[i];
      const Result<PageShape> shape = source.reader->page_shape(source.id);
      if (!shape.ok()) return shape.status();
      request.pages.push_back({source.id, *shape,
                               [&, source, size = shape->payload_bytes(),
                                count = pages.size()]() -> Result<std::span<const std::byte>> {
                                 payload.resize(size);
                                 Status status = source.reader->read_page(source.id, payload);
                                 if (!status.ok()) return status;
                                 if (options.on_progress && !options.on_progress(++done, count)) {
                                   return error(StatusCode::io_error, "resharding was stopped");
                                 }
                                 return std::span<const std::byte>(payload);
                               }});
    }
    report.pages.push_back(request.pages.size());
    const Result<CommitInfo> info = to[part]->commit(request);
    if (!info.ok()) return info.status();
  }
  return report;
}

}  // namespace perennial::storage
