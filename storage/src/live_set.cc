// SPDX-License-Identifier: Apache-2.0
// Collecting what is live, commit by commit.
#include "live_set.h"

#include <algorithm>

#include "keys.h"
#include "page_codec.h"
#include "room.h"

namespace perennial::storage {
namespace {

// Of equal ids, the one whose digest is known comes first and stays.
void remove_duplicates(std::vector<LiveSet::Page>& pages) {
  std::ranges::sort(pages, {}, [](const LiveSet::Page& p) { return std::pair(p.id, p.base_only); });
  const auto twice = [](const LiveSet::Page& a, const LiveSet::Page& b) { return a.id == b.id; };
  pages.erase(std::unique(pages.begin(), pages.end(), twice), pages.end());
}

}  // namespace

// The same pages come again with every full table: removed as they pile up.
void LiveSet::add(std::uint64_t commit, const Page& page) {
  Commit& live = commits_[commit];
  live.pages.push_back(page);
  if (live.pages.size() < live.tidy_at) return;
  remove_duplicates(live.pages);
  live.tidy_at = std::max<std::size_t>(live.tidy_at, 2 * live.pages.size());
}

void LiveSet::add(const PageId& id, const PageEntry& entry) {
  add(entry.commit, {id, entry, false});
  if (!entry.is_delta()) return;
  PageEntry base;
  base.shape = entry.shape;
  base.commit = entry.base;
  add(entry.base, {id, base, true});
}

void LiveSet::add(const std::string& name, const DenseEntry& entry) {
  for (std::size_t i = 0; i < entry.chunks.size(); ++i) {
    commits_[entry.chunks[i].commit].chunks.push_back(
        {entry.chunks[i].digest, entry.chunk_bytes(i), name, i});
  }
}

void LiveSet::finish() {
  for (auto& [number, commit] : commits_) {
    remove_duplicates(commit.pages);
    std::ranges::stable_sort(commit.chunks, {}, &Chunk::digest);
    const auto twice = [](const Chunk& a, const Chunk& b) { return a.digest == b.digest; };
    commit.chunks.erase(std::unique(commit.chunks.begin(), commit.chunks.end(), twice),
                        commit.chunks.end());
    commit.bytes = commit.record_bytes;
    for (const Page& page : commit.pages) {
      commit.bytes += kPageHeaderBytes + stored_bytes(page.entry);
    }
    for (const Chunk& chunk : commit.chunks) commit.bytes += chunk.bytes;
  }
}

Result<LiveSet> LiveSet::collect(
    const Backend& backend, const State& newest, const std::set<std::uint64_t>& pinned,
    const std::function<void(std::uint64_t commit, const Status&)>& broken) {
  LiveSet live;
  live.newest_ = newest.info.commit;
  std::uint64_t known = 0;  // the newest kept commit whose records have all been added
  std::set<std::uint64_t> kept = pinned;
  for (const auto& [commit, entry] : newest.catalog) kept.insert(commit);
  for (const std::uint64_t commit : kept) {
    // Records back to the full table, or to what is known already.
    std::vector<Record> chain;
    Status failed;
    for (std::uint64_t at = commit; at > known; --at) {
      std::uint64_t bytes = 0;
      Result<Record> record = read_record(backend, at, &bytes);
      if (!record.ok()) {
        if (!broken) return record.status();
        broken(at, record.status());
        failed = record.status();
        break;
      }
      live.commits_[at].record_bytes = bytes;
      chain.push_back(std::move(*record));
      if (chain.back().full) break;
    }
    // A table is the newest full one with the changes since. Pages of the commits between that are
    // not kept themselves are live only if they reach this commit.
    std::map<PageId, PageEntry> changed;
    for (auto at = chain.rbegin(); at != chain.rend(); ++at) {
      const Record& record = *at;
      if (record.full) {
        changed.clear();
        for (const ListedPage& page : record.table) changed[page.id] = page.entry;
      } else {
        for (const PageId& id : record.removed) changed.erase(id);
        for (const ListedPage& page : record.pages) changed[page.id] = page.entry;
      }
    }
    for (const auto& [id, page] : changed) live.add(id, page);
    if (!chain.empty()) {
      for (const auto& [name, dense] : chain.front().dense) live.add(name, dense);
    }
    if (failed.ok()) known = commit;
  }
  live.finish();
  return live;
}

bool LiveSet::keeps(const std::string& key) const {
  const std::optional<ParsedKey> parsed = parse_key(key);
  if (!parsed || parsed->commit > newest_) return true;
  const auto found = commits_.find(parsed->commit);
  if (found == commits_.end()) return false;
  const Commit& commit = found->second;
  switch (parsed->tag) {
    case kRecordTag:
      return commit.record_bytes != 0;
    case kPageTag:
      return std::ranges::binary_search(commit.pages, parsed->page, {}, &Page::id);
    case kChunkTag:
      return std::ranges::binary_search(commit.chunks, parsed->chunk, {}, &Chunk::digest);
    default:
      return true;
  }
}

std::uint64_t LiveSet::file_bytes(std::uint64_t first, std::uint64_t last) const {
  std::uint64_t keys = 0;
  for (auto at = commits_.lower_bound(first); at != commits_.end() && at->first <= last; ++at) {
    keys += at->second.keys();
  }
  return kTableBytes + bytes(first, last) + kKeyBytes * keys;
}

std::uint64_t LiveSet::bytes(std::uint64_t first, std::uint64_t last) const {
  std::uint64_t bytes = 0;
  for (auto at = commits_.lower_bound(first); at != commits_.end() && at->first <= last; ++at) {
    bytes += at->second.bytes;
  }
  return bytes;
}

}  // namespace perennial::storage
