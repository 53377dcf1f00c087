// SPDX-License-Identifier: Apache-2.0
// Setting up and following the pool: budget, generations, what the store lists.
#include "pool/pager.h"

#include <algorithm>
#include <string>

namespace perennial {

using storage::PageKind;

Pager::Pager(std::uint32_t pool, const PoolOptions& options, storage::PageStore* store,
             std::int64_t budget_bytes)
    : pool_(pool),
      options_(options),
      tile_(options.tile()),
      store_(store),
      budget_bytes_(budget_bytes) {
  if (budget_bytes < 0) {
    throw InvalidOptions("budget_bytes is " + std::to_string(budget_bytes) +
                         "; it must be 0 (no limit) or positive");
  }
  if (budget_bytes > 0 && store == nullptr) {
    throw InvalidOptions("a memory budget (budget_bytes = " + std::to_string(budget_bytes) +
                         ") needs a store to page to");
  }
  for (Kind& kind : kinds_) kind.newest = kind.oldest = kNoFrame;
  kinds_[index(PageKind::weights)].slab =
      std::make_unique<FrameSlab>(page_bytes(PageKind::weights));
}

Pager::~Pager() = default;

storage::PageShape Pager::shape(PageKind kind) const {
  const std::int64_t floats =
      kind == PageKind::weights ? options_.layout().stride() : state_floats_;
  return {storage::DType::f32, static_cast<std::uint32_t>(tile_),
          static_cast<std::uint32_t>(floats)};
}

std::size_t Pager::page_bytes(PageKind kind) const { return shape(kind).payload_bytes(); }

storage::PageId Pager::page_id(PageKind kind, const Table& table, std::uint32_t page) const {
  return {kind, pool_, table.first_row + page / table.tiles, page % table.tiles};
}

std::uint32_t Pager::max_frames() const {
  if (budget_bytes_ == 0) return kNoFrame;
  const std::size_t pair = page_bytes(PageKind::weights) + page_bytes(PageKind::state);
  const auto frames = static_cast<std::size_t>(budget_bytes_) / pair;
  return static_cast<std::uint32_t>(std::min<std::size_t>(frames, kNoFrame - 1));
}

void Pager::require_slots(std::int64_t slots) const {
  if (static_cast<std::int64_t>(max_frames()) >= slots) return;
  const std::size_t pair = page_bytes(PageKind::weights) + page_bytes(PageKind::state);
  throw InvalidOptions(
      "the memory budget of " + std::to_string(budget_bytes_) +
      " bytes is too small: a token may " + "retrieve " + std::to_string(slots) + " pages of " +
      std::to_string(page_bytes(PageKind::weights)) + " bytes of weights and " +
      std::to_string(page_bytes(PageKind::state)) + " bytes of optimizer state; at least " +
      std::to_string(static_cast<std::size_t>(slots) * pair) + " bytes are needed");
}

void Pager::attach_state(std::int64_t floats) {
  if (floats == state_floats_) return;
  for (const Table& table : tables_) {
    for (const Page& page : table.pages[index(PageKind::state)]) {
      if (page.state != PageState::initial) {
        throw InvalidOptions("the pool holds optimizer state of " + std::to_string(state_floats_) +
                             " floats an expert; the optimizer asked for needs " +
                             std::to_string(floats));
      }
    }
  }
  state_floats_ = floats;
  Kind& state = kinds_[index(PageKind::state)];
  state = Kind{};
  state.newest = state.oldest = kNoFrame;
  if (floats > 0) state.slab = std::make_unique<FrameSlab>(page_bytes(PageKind::state));
  // Fewer weight frames fit beside the state's: start again with an empty cache.
  Kind& weights = kinds_[index(PageKind::weights)];
  if (weights.slab->frames() > max_frames()) {
    while (weights.oldest != kNoFrame) evict(PageKind::weights, weights.oldest);
    weights = Kind{};
    weights.newest = weights.oldest = kNoFrame;
    weights.slab = std::make_unique<FrameSlab>(page_bytes(PageKind::weights));
  }
}

void Pager::add_generation(const Generation& generation) {
  Table table;
  table.first_row = generation.first_row;
  table.rows = generation.rows;
  table.tiles = static_cast<std::uint32_t>((generation.cols + tile_ - 1) / tile_);
  table.recipe = generation.recipe;
  table.frozen = generation.frozen;
  const std::size_t pages = std::size_t{table.rows} * table.tiles;
  for (PageKind kind : kPageKinds) {
    table.pages[index(kind)].resize(pages);
    table.frames[index(kind)].resize(pages, nullptr);
  }
  tables_.push_back(std::move(table));
  for (PageKind kind : kPageKinds) {
    const Table& added = tables_.back();
    spans_[index(kind)].push_back(
        {added.first_row, added.rows, added.tiles, added.frames[index(kind)].data()});
  }
}

void Pager::widen_generation(const Generation& generation) {
  Table& table = tables_.at(generation.index);
  const auto tiles = static_cast<std::uint32_t>((generation.cols + tile_ - 1) / tile_);
  if (tiles == table.tiles) return;
  const std::size_t pages = std::size_t{table.rows} * tiles;
  for (PageKind kind : kPageKinds) {
    std::vector<Page> wider(pages);
    std::vector<float*> frames(pages, nullptr);
    for (std::uint32_t row = 0; row < table.rows; ++row) {
      for (std::uint32_t tile = 0; tile < table.tiles; ++tile) {
        const std::size_t from = std::size_t{row} * table.tiles + tile;
        const std::size_t to = std::size_t{row} * tiles + tile;
        wider[to] = table.pages[index(kind)][from];
        frames[to] = table.frames[index(kind)][from];
        if (in_frame(wider[to].state)) {
          kinds_[index(kind)].frames[wider[to].frame].page = static_cast<std::uint32_t>(to);
        }
      }
    }
    table.pages[index(kind)] = std::move(wider);
    table.frames[index(kind)] = std::move(frames);
    spans_[index(kind)][generation.index] = {table.first_row, table.rows, tiles,
                                             table.frames[index(kind)].data()};
  }
  table.tiles = tiles;
}

void Pager::list_stored() {
  for (const storage::PageId& id : store_->pages()) {
    if (id.pool != pool_) continue;
    Table& table = tables_.at(generation_of(id.row));
    const storage::PageShape found = value_or_throw(store_->page_shape(id));
    if (id.kind == PageKind::state && state_floats_ == 0) attach_state(found.record_floats);
    if (id.tile >= table.tiles || !(found == shape(id.kind))) {
      throw DataError(to_string(id) + " does not fit its pool: " + std::to_string(found.experts) +
                      " experts of " + std::to_string(found.record_floats) + " floats, expected " +
                      std::to_string(tile_) + " of " +
                      std::to_string(shape(id.kind).record_floats));
    }
    Page& page =
        table.pages[index(id.kind)][std::size_t{id.row - table.first_row} * table.tiles + id.tile];
    page.state = PageState::absent;
    page.stored = true;
  }
}

std::uint32_t Pager::generation_of(std::uint32_t row) const {
  const auto after = std::upper_bound(
      tables_.begin(), tables_.end(), row,
      [](std::uint32_t value, const Table& table) { return value < table.first_row; });
  if (after == tables_.begin() || row - std::prev(after)->first_row >= std::prev(after)->rows) {
    throw DataError("row " + std::to_string(row) + " belongs to no generation of pool " +
                    std::to_string(pool_));
  }
  return static_cast<std::uint32_t>(std::prev(after) - tables_.begin());
}

kernels::FrameTable Pager::table(PageKind kind) const {
  return {spans_[index(kind)], static_cast<std::uint32_t>(tile_),
          static_cast<std::int64_t>(shape(kind).record_floats)};
}

std::uint64_t Pager::resident_bytes() const {
  std::uint64_t bytes = 0;
  for (const Kind& kind : kinds_) {
    if (kind.slab != nullptr)
      bytes += std::uint64_t{kind.slab->frames()} * kind.slab->frame_bytes();
  }
  return bytes;
}

PagerCounters Pager::counters() const {
  PagerCounters counters = counters_;
  counters.resident_bytes = resident_bytes();
  if (spill_ != nullptr) counters.spill_file_bytes = spill_->bytes();
  return counters;
}

}  // namespace perennial
