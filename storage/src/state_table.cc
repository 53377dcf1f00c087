// SPDX-License-Identifier: Apache-2.0
// The page and dense tables of a state, and its digest.
#include "state_table.h"

#include <algorithm>

namespace perennial::storage {
namespace {

PageId row_of(PageId id) {
  id.tile = 0;
  return id;
}

template <class Items, class Key>
auto lower_bound(Items& items, const Key& key) {
  return std::ranges::lower_bound(items, key, {}, [](const auto& item) { return item.first; });
}

template <class Items, class Key>
auto find_in(Items& items, const Key& key) {
  const auto place = lower_bound(items, key);
  return place != items.end() && place->first == key ? place : items.end();
}

}  // namespace

const PageEntry* StateTable::find(const PageId& id) const {
  const auto row = find_in(rows_, row_of(id));
  if (row == rows_.end()) return nullptr;
  const auto& tiles = row->second->tiles;
  const auto tile = find_in(tiles, id.tile);
  return tile == tiles.end() ? nullptr : &tile->second;
}

Digest StateTable::digest() const {
  Hasher state;
  state.update(std::uint64_t{rows_.size()});
  for (const auto& [id, row] : rows_) {
    state.update(static_cast<std::uint64_t>(id.kind))
        .update(std::uint64_t{id.pool})
        .update(std::uint64_t{id.row})
        .update(std::uint64_t{row->tiles.size()})
        .update(row->digest);
  }
  state.update(std::uint64_t{dense_.size()});
  for (const auto& [name, entry] : dense_) {
    state.update(std::string_view(name)).update(entry.size);
    for (const ChunkRef& chunk : entry.chunks) state.update(chunk.digest);
  }
  return state.finish();
}

StateTable::Row& StateTable::Builder::touch(const PageId& row) {
  const auto [place, is_new] = touched_.try_emplace(row);
  if (is_new) {
    const auto before = find_in(base_.rows_, row);
    if (before != base_.rows_.end()) place->second.tiles = before->second->tiles;
  }
  return place->second;
}

void StateTable::Builder::set(const PageId& id, const PageEntry& entry) {
  auto& tiles = touch(row_of(id)).tiles;
  const auto place = lower_bound(tiles, id.tile);
  if (place != tiles.end() && place->first == id.tile) {
    place->second = entry;
  } else {
    tiles.emplace(place, id.tile, entry);
    ++base_.size_;
  }
}

bool StateTable::Builder::erase(const PageId& id) {
  auto& tiles = touch(row_of(id)).tiles;
  const auto place = find_in(tiles, id.tile);
  if (place == tiles.end()) return false;
  tiles.erase(place);
  --base_.size_;
  return true;
}

StateTable StateTable::Builder::build() {
  decltype(base_.rows_) rows;
  rows.reserve(base_.rows_.size() + touched_.size());
  auto before = base_.rows_.begin();
  for (auto& [id, row] : touched_) {
    for (; before != base_.rows_.end() && before->first < id; ++before) rows.push_back(*before);
    if (before != base_.rows_.end() && before->first == id) ++before;
    if (row.tiles.empty()) continue;
    Hasher hasher;
    for (const auto& [tile, entry] : row.tiles) {
      hasher.update(std::uint64_t{tile})
          .update(static_cast<std::uint64_t>(entry.shape.dtype))
          .update(std::uint64_t{entry.shape.experts})
          .update(std::uint64_t{entry.shape.record_floats})
          .update(entry.digest);
    }
    row.digest = hasher.finish();
    rows.emplace_back(id, std::make_shared<const Row>(std::move(row)));
  }
  rows.insert(rows.end(), before, base_.rows_.end());
  base_.rows_ = std::move(rows);
  touched_.clear();
  return std::move(base_);
}

}  // namespace perennial::storage
