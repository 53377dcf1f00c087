// SPDX-License-Identifier: Apache-2.0
// Following the pool: its generations, its optimizer's state, what the store lists.
#include "pool/pager.h"

#include <algorithm>
#include <limits>
#include <span>
#include <string>

#include "pool/pager_source.h"

namespace perennial {

using storage::PageKind;

namespace {

std::string text_of(const storage::PageShape& shape) {
  return std::to_string(shape.experts) + " experts of " + std::to_string(shape.record_floats) +
         (shape.dtype == storage::DType::bf16 ? " bf16" : " f32");
}

}  // namespace

Pager::Pager(std::uint32_t pool, const PoolOptions& options, PageMemory& memory)
    : pool_(pool),
      options_(options),
      tile_(options.tile()),
      store_(memory.store()),
      budget_bytes_(memory.budget_bytes()),
      cache_(memory.cache()),
      source_(std::make_unique<Source>(*this)) {}

Pager::~Pager() {
  const PageCache::Exclusive alone(cache_);
  for (const Table& table : tables_) cache_.remove_region(table.region);
}

storage::PageShape Pager::shape(PageKind kind) const {
  const auto tile = static_cast<std::uint32_t>(tile_);
  if (kind == PageKind::state) {
    return {storage::DType::f32, tile, static_cast<std::uint32_t>(state_floats_)};
  }
  const kernels::ExpertLayout layout = options_.layout();
  const bool bf16 = layout.type == kernels::WeightType::bf16;
  return {bf16 ? storage::DType::bf16 : storage::DType::f32, tile,
          static_cast<std::uint32_t>(layout.stride())};
}

storage::PageId Pager::page_id(PageKind kind, std::uint32_t generation, std::uint32_t page) const {
  const Table& table = tables_[generation];
  return {kind, pool_, table.first_row + page / table.tiles, page % table.tiles};
}

// How many pairs of a page of weights and one of state fit the budget.
std::int64_t Pager::pairs() const {
  if (budget_bytes_ == 0) return std::numeric_limits<std::uint32_t>::max();
  return budget_bytes_ /
         static_cast<std::int64_t>(page_bytes(PageKind::weights) + page_bytes(PageKind::state));
}

void Pager::require_slots(std::int64_t slots) const {
  if (pairs() >= slots) return;
  const std::size_t pair = page_bytes(PageKind::weights) + page_bytes(PageKind::state);
  throw InvalidOptions(
      "the memory budget of " + std::to_string(budget_bytes_) +
      " bytes is too small: a token may retrieve " + std::to_string(slots) + " pages of " +
      std::to_string(page_bytes(PageKind::weights)) + " bytes of weights and " +
      std::to_string(page_bytes(PageKind::state)) + " bytes of optimizer state; at least " +
      std::to_string(static_cast<std::size_t>(slots) * pair) + " bytes are needed");
}

void Pager::attach_state(std::int64_t floats) {
  if (floats == state_floats_) return;
  for (const Table& table : tables_) {
    for (std::uint32_t page = 0; page < table.pages(); ++page) {
      if (cache_.state({PageKind::state, table.region, page}) != PageState::initial) {
        throw InvalidOptions("the pool holds optimizer state of " + std::to_string(state_floats_) +
                             " floats an expert; the optimizer asked for needs " +
                             std::to_string(floats));
      }
    }
  }
  const PageCache::Exclusive alone(cache_);
  state_floats_ = floats;
  for (const Table& table : tables_) cache_.resize_pages(PageKind::state, table.region);
}

// What the kernels see of the tables.
void Pager::show_frames() {
  for (const PageKind kind : kPageKinds) {
    std::vector<kernels::PageSpan>& spans = spans_[kind_index(kind)];
    spans.clear();
    for (const Table& table : tables_) {
      spans.push_back(
          {table.first_row, table.rows, table.tiles, cache_.frames(kind, table.region)});
    }
  }
}

void Pager::add_generation(const Generation& generation) {
  const PageCache::Exclusive alone(cache_);
  const auto number = static_cast<std::uint32_t>(tables_.size());
  const auto pages = static_cast<std::uint32_t>(options_.pages(generation.rows, generation.cols));
  tables_.push_back({0, generation.first_row, generation.rows, options_.tiles(generation.cols),
                     generation.recipe});
  try {
    tables_.back().region = cache_.add_region(*source_, number, pages);
  } catch (...) {
    tables_.pop_back();
    throw;
  }
  show_frames();
}

void Pager::remove_last_generation() {
  const PageCache::Exclusive alone(cache_);
  cache_.remove_region(tables_.back().region);
  tables_.pop_back();
  show_frames();
}

void Pager::widen_generation(const Generation& generation) {
  Table& table = tables_.at(generation.index);
  const std::uint32_t before = table.tiles, tiles = options_.tiles(generation.cols);
  if (tiles == before) return;
  const PageCache::Exclusive alone(cache_);
  cache_.widen_region(table.region, table.rows * tiles, [before, tiles](std::uint32_t page) {
    return page / before * tiles + page % before;
  });
  table.tiles = tiles;
  show_frames();
}

void Pager::take_stored(std::span<const storage::PageId> listed) {
  const auto of = [&](PageKind kind) {
    constexpr std::uint32_t kLast = std::numeric_limits<std::uint32_t>::max();
    const auto begin =
        std::lower_bound(listed.begin(), listed.end(), storage::PageId{kind, pool_, 0, 0});
    return std::span(
        begin, std::upper_bound(begin, listed.end(), storage::PageId{kind, pool_, kLast, kLast}));
  };
  const auto state = of(PageKind::state);
  if (!state.empty() && state_floats_ == 0) {
    attach_state(value_or_throw(store_->page_shape(state.front())).record_floats);
  }
  const PageCache::Exclusive alone(cache_);
  for (const PageKind kind : kPageKinds) {
    for (const storage::PageId& id : of(kind)) {
      const Table& table = tables_[generation_of(id.row)];
      const storage::PageShape found = value_or_throw(store_->page_shape(id));
      if (id.tile >= table.tiles || !(found == shape(kind))) {
        throw DataError(to_string(id) + " does not fit its pool: it has " + text_of(found) +
                        ", expected " + text_of(shape(kind)));
      }
      cache_.set_stored({kind, table.region, (id.row - table.first_row) * table.tiles + id.tile});
    }
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
  return {spans_[kind_index(kind)], static_cast<std::uint32_t>(tile_),
          static_cast<std::int64_t>(page_bytes(kind) / sizeof(float)) / tile_};
}

}  // namespace perennial
