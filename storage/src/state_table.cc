// SPDX-License-Identifier: Apache-2.0
// The page and dense tables of a state, and its digest.
#include "state_table.h"

#include <algorithm>
#include <ranges>

namespace perennial::storage {
namespace {

PageId row_of(PageId id) {
  id.tile = 0;
  return id;
}

template <class Tiles>
auto lower_bound(Tiles& tiles, std::uint32_t tile) {
  return std::ranges::lower_bound(tiles, tile, {}, [](const auto& item) { return item.first; });
}

}  // namespace

const PageEntry* StateTable::find(const PageId& id) const {
  const auto row = rows_.find(row_of(id));
  if (row == rows_.end()) return nullptr;
  const auto place = lower_bound(row->second.tiles, id.tile);
  if (place == row->second.tiles.end() || place->first != id.tile) return nullptr;
  return &place->second;
}

void StateTable::set(const PageId& id, const PageEntry& entry, Undo* undo) {
  Row& row = rows_[row_of(id)];
  row.stale = true;
  const auto place = lower_bound(row.tiles, id.tile);
  if (place != row.tiles.end() && place->first == id.tile) {
    if (undo != nullptr) undo->emplace_back(id, place->second);
    place->second = entry;
    return;
  }
  if (undo != nullptr) undo->emplace_back(id, std::nullopt);
  row.tiles.emplace(place, id.tile, entry);
  ++size_;
}

bool StateTable::erase(const PageId& id, Undo* undo) {
  const auto row = rows_.find(row_of(id));
  if (row == rows_.end()) return false;
  const auto place = lower_bound(row->second.tiles, id.tile);
  if (place == row->second.tiles.end() || place->first != id.tile) return false;
  if (undo != nullptr) undo->emplace_back(id, place->second);
  row->second.tiles.erase(place);
  row->second.stale = true;
  if (row->second.tiles.empty()) rows_.erase(row);
  --size_;
  return true;
}

void StateTable::revert(const Undo& undo) {
  for (const auto& [id, before] : std::views::reverse(undo)) {
    if (before) {
      set(id, *before);
    } else {
      erase(id);
    }
  }
}

Digest StateTable::digest() {
  Hasher state;
  state.update(std::uint64_t{rows_.size()});
  for (auto& [id, row] : rows_) {
    if (row.stale) {
      Hasher tiles;
      for (const auto& [tile, entry] : row.tiles) {
        tiles.update(std::uint64_t{tile})
            .update(static_cast<std::uint64_t>(entry.shape.dtype))
            .update(std::uint64_t{entry.shape.experts})
            .update(std::uint64_t{entry.shape.record_floats})
            .update(entry.digest);
      }
      row.digest = tiles.finish();
      row.stale = false;
    }
    state.update(static_cast<std::uint64_t>(id.kind))
        .update(std::uint64_t{id.pool})
        .update(std::uint64_t{id.row})
        .update(std::uint64_t{row.tiles.size()})
        .update(row.digest);
  }
  state.update(std::uint64_t{dense_.size()});
  for (const auto& [name, entry] : dense_) {
    state.update(std::string_view(name)).update(entry.size);
    for (const ChunkRef& chunk : entry.chunks) state.update(chunk.digest);
  }
  return state.finish();
}

}  // namespace perennial::storage
