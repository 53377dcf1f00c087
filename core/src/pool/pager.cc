// SPDX-License-Identifier: Apache-2.0
// Pinning, filling and evicting frames; what a commit takes from them.
#include "pool/pager.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>

#include "perennial/kernels/philox.h"

namespace perennial {

using storage::PageKind;

namespace {

constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();
constexpr std::array<PageKind, 2> kKinds = {PageKind::weights, PageKind::state};

storage::Status about(const storage::PageId& id, const storage::Status& status) {
  return {status.code(), to_string(id) + ": " + status.message()};
}

bool in_frame(PageState state) { return state == PageState::resident || state == PageState::dirty; }

}  // namespace

void PagePin::release() {
  for (const Item& item : items_) pager_->unpin(item);
  items_.clear();
  pager_ = nullptr;
}

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
  for (Kind& kind : kinds_) kind.newest = kind.oldest = kNone;
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
  if (budget_bytes_ == 0) return kNone;
  const std::size_t pair = page_bytes(PageKind::weights) + page_bytes(PageKind::state);
  const auto frames = static_cast<std::size_t>(budget_bytes_) / pair;
  return static_cast<std::uint32_t>(std::min<std::size_t>(frames, kNone - 1));
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
  state.newest = state.oldest = kNone;
  if (floats > 0) state.slab = std::make_unique<FrameSlab>(page_bytes(PageKind::state));
  // Fewer weight frames fit beside the state's: start again with an empty cache.
  Kind& weights = kinds_[index(PageKind::weights)];
  if (weights.slab->frames() > max_frames()) {
    while (weights.oldest != kNone) evict(PageKind::weights, weights.oldest);
    weights = Kind{};
    weights.newest = weights.oldest = kNone;
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
  for (PageKind kind : kKinds) {
    table.pages[index(kind)].resize(pages);
    table.frames[index(kind)].resize(pages, nullptr);
  }
  tables_.push_back(std::move(table));
  for (PageKind kind : kKinds) {
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
  for (PageKind kind : kKinds) {
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

void Pager::unlink(Kind& kind, std::uint32_t frame) {
  Frame& f = kind.frames[frame];
  (f.newer == kNone ? kind.newest : kind.frames[f.newer].older) = f.older;
  (f.older == kNone ? kind.oldest : kind.frames[f.older].newer) = f.newer;
}

void Pager::link_newest(Kind& kind, std::uint32_t frame) {
  Frame& f = kind.frames[frame];
  f.newer = kNone;
  f.older = kind.newest;
  (kind.newest == kNone ? kind.oldest : kind.frames[kind.newest].newer) = frame;
  kind.newest = frame;
}

// A frame for a new page: a free one, a new one within the budget, or the least recently used one
// that nobody has pinned. kNone when every frame is pinned.
std::uint32_t Pager::free_frame(PageKind kind) {
  Kind& k = kinds_[index(kind)];
  if (k.free_frames.empty()) {
    if (k.slab->frames() < max_frames()) {
      const std::uint32_t added = k.slab->add();
      k.frames.resize(k.slab->frames());
      counters_.peak_bytes = std::max(counters_.peak_bytes, resident_bytes());
      return added;
    }
    std::uint32_t victim = k.oldest;
    while (victim != kNone &&
           tables_[k.frames[victim].generation].pages[index(kind)][k.frames[victim].page].pins >
               0) {
      victim = k.frames[victim].newer;
    }
    if (victim == kNone) return kNone;
    evict(kind, victim);
  }
  const std::uint32_t frame = k.free_frames.back();
  k.free_frames.pop_back();
  return frame;
}

void Pager::evict(PageKind kind, std::uint32_t frame) {
  Kind& k = kinds_[index(kind)];
  const Frame f = k.frames[frame];
  Page& page = tables_[f.generation].pages[index(kind)][f.page];
  if (page.state == PageState::dirty) {
    const storage::PageId id = page_id(kind, tables_[f.generation], f.page);
    if (spill_ == nullptr) {
      auto created = storage::SpillFile::create(store_->scratch_folder());
      if (!created.ok()) throw StorageError(about(id, created.status()));
      spill_ = std::move(created).value();
    }
    const std::span<const float> floats(k.slab->frame(frame), page_bytes(kind) / sizeof(float));
    const auto slot = spill_->write(std::as_bytes(floats));
    if (!slot.ok()) throw StorageError(about(id, slot.status()));
    page.slot = slot.value();
    ++counters_.spilled;
  }
  ++counters_.evicted;
  const PageState left = page.state == PageState::dirty ? PageState::spilled
                         : page.stored                  ? PageState::absent
                                                        : PageState::initial;
  drop_frame(kind, f.generation, f.page);
  page.state = left;
}

// Takes a page's frame away; the caller sets the page's new state.
void Pager::drop_frame(PageKind kind, std::uint32_t generation, std::uint32_t page) {
  Kind& k = kinds_[index(kind)];
  Table& table = tables_[generation];
  const std::uint32_t frame = table.pages[index(kind)][page].frame;
  unlink(k, frame);
  k.free_frames.push_back(frame);
  table.frames[index(kind)][page] = nullptr;
}

// Pins one page; pages without content are added to `missing`. False when every frame is pinned.
bool Pager::take(PageKind kind, std::uint32_t generation, std::uint32_t page_index, PagePin& pin,
                 std::vector<Missing>& missing) {
  Page& page = tables_[generation].pages[index(kind)][page_index];
  if (page.mark == serial_) return true;
  Kind& k = kinds_[index(kind)];
  if (in_frame(page.state)) {
    unlink(k, page.frame);
    link_newest(k, page.frame);
    ++counters_.hits;
  } else {
    const std::uint32_t frame = free_frame(kind);
    if (frame == kNone) return false;
    page.frame = frame;
    k.frames[frame].generation = generation;
    k.frames[frame].page = page_index;
    link_newest(k, frame);
    missing.push_back({generation, page_index});
  }
  page.mark = serial_;
  ++page.pins;
  pin.items_.push_back({kind, generation, page_index});
  return true;
}

void Pager::unpin(const PagePin::Item& item) {
  Page& page = tables_[item.generation].pages[index(item.kind)][item.page];
  --page.pins;
  page.mark = 0;
  // A page whose filling failed goes back to what it was.
  if (!in_frame(page.state)) drop_frame(item.kind, item.generation, item.page);
}

void Pager::fill_initial(PageKind kind, const Table& table, std::uint32_t page,
                         float* frame) const {
  const std::size_t record = shape(kind).record_floats;
  if (kind == PageKind::state) {
    std::memset(frame, 0, page_bytes(kind));
    return;
  }
  const kernels::ExpertLayout layout = options_.layout();
  const Recipe& recipe = table.recipe;
  const auto seed = static_cast<std::uint64_t>(recipe.seed);
  const auto row = static_cast<std::uint32_t>(recipe.origin_row) + page / table.tiles;
  // Part 0 is u, 1 is v, 2 is w; pools are told apart by the same counter word.
  const auto draw = [&](std::uint32_t col, std::uint32_t part, double scale, float* out,
                        std::int64_t n) {
    const auto lane = static_cast<std::uint32_t>(recipe.origin_pool) * 4 + part;
    const std::span<float> values(out, static_cast<std::size_t>(n));
    if (recipe.distribution == Distribution::normal) {
      kernels::fill_normal(seed, row, col, lane, static_cast<float>(scale), values);
    } else {
      kernels::fill_uniform(seed, row, col, lane, static_cast<float>(scale), values);
    }
  };
  for (std::int64_t i = 0; i < tile_; ++i) {
    float* expert = frame + static_cast<std::size_t>(i) * record;
    const auto col = static_cast<std::uint32_t>((page % table.tiles) * tile_ + i);
    draw(col, 0, recipe.u_scale, expert + layout.u(), layout.d_in);
    draw(col, 1, recipe.v_scale, expert + layout.v(), layout.d_out);
    if (layout.glu) draw(col, 2, recipe.u_scale, expert + layout.w(), layout.d_in);
    std::fill(expert + layout.used(), expert + layout.stride(), 0.0F);
  }
}

void Pager::fill(PageKind kind, const std::vector<Missing>& missing, PagePin& pin) {
  if (missing.empty()) return;
  Kind& k = kinds_[index(kind)];
  const std::size_t bytes = page_bytes(kind);
  const auto buffer = [&](const Page& page) {
    return std::as_writable_bytes(
        std::span<float>(k.slab->frame(page.frame), bytes / sizeof(float)));
  };
  std::mutex mutex;
  storage::Status failed;
  for (const Missing& m : missing) {
    const Page& page = tables_[m.generation].pages[index(kind)][m.page];
    if (page.state != PageState::spilled) continue;
    failed = spill_->read(page.slot, buffer(page));
    if (failed.ok()) continue;
    failed = about(page_id(kind, tables_[m.generation], m.page), failed);
    break;
  }
  if (failed.ok()) {
    at::parallel_for(0, static_cast<std::int64_t>(missing.size()), 1, [&](auto begin, auto end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Missing& m = missing[static_cast<std::size_t>(i)];
        const Table& table = tables_[m.generation];
        const Page& page = table.pages[index(kind)][m.page];
        if (page.state == PageState::initial) {
          fill_initial(kind, table, m.page, k.slab->frame(page.frame));
        } else if (page.state == PageState::absent) {
          storage::Status status = store_->read_page(page_id(kind, table, m.page), buffer(page));
          if (!status.ok()) {
            const std::lock_guard lock(mutex);
            failed = std::move(status);
          }
        }
      }
    });
  }
  if (!failed.ok()) {
    pin.release();  // gives back the frames of everything that is missing
    throw StorageError(failed);
  }
  for (const Missing& m : missing) {
    Table& table = tables_[m.generation];
    Page& page = table.pages[index(kind)][m.page];
    switch (page.state) {
      case PageState::initial:
        ++counters_.initialised;
        break;
      case PageState::absent:
        ++counters_.read;
        break;
      default:
        ++counters_.unspilled;
        spill_->free(page.slot);
        break;
    }
    page.state = page.state == PageState::spilled ? PageState::dirty : PageState::resident;
    table.frames[index(kind)][m.page] = k.slab->frame(page.frame);
  }
}

std::int64_t Pager::pin_tokens(const std::int64_t* ids, std::int64_t slots, std::int64_t begin,
                               std::int64_t end, PagePin& pin) {
  pin.release();
  pin.pager_ = this;
  ++serial_;
  std::vector<Missing> missing;
  std::int64_t token = begin;
  try {
    for (; token < end; ++token) {
      bool fits = true;
      for (std::int64_t s = 0; s < slots && fits; ++s) {
        const std::int64_t id = ids[token * slots + s];
        const std::uint32_t row = kernels::row_of(id);
        std::uint32_t generation = 0;
        while (row - tables_[generation].first_row >= tables_[generation].rows) ++generation;
        const Table& table = tables_[generation];
        const auto page = static_cast<std::uint32_t>((row - table.first_row) * table.tiles +
                                                     kernels::col_of(id) / tile_);
        fits = take(PageKind::weights, generation, page, pin, missing);
      }
      if (!fits) break;
    }
  } catch (...) {
    pin.release();
    throw;
  }
  fill(PageKind::weights, missing, pin);
  if (token == begin && begin < end) require_slots(slots);
  return token;
}

std::size_t Pager::pin_for_update(std::span<const std::int64_t> ids, PagePin& pin) {
  pin.release();
  pin.pager_ = this;
  ++serial_;
  std::array<std::vector<Missing>, 2> missing;
  std::size_t taken = 0;
  try {
    for (; taken < ids.size(); ++taken) {
      const std::uint32_t row = kernels::row_of(ids[taken]);
      const std::uint32_t generation = generation_of(row);
      const Table& table = tables_[generation];
      const auto page = static_cast<std::uint32_t>((row - table.first_row) * table.tiles +
                                                   kernels::col_of(ids[taken]) / tile_);
      if (!take(PageKind::weights, generation, page, pin, missing[0])) break;
      if (state_floats_ > 0 && !take(PageKind::state, generation, page, pin, missing[1])) break;
    }
  } catch (...) {
    pin.release();
    throw;
  }
  fill(PageKind::weights, missing[0], pin);
  if (state_floats_ > 0) fill(PageKind::state, missing[1], pin);
  if (taken == 0 && !ids.empty()) require_slots(1);
  for (std::size_t i = 0; i < taken; ++i) {
    const std::uint32_t row = kernels::row_of(ids[i]);
    Table& table = tables_[generation_of(row)];
    const auto page = static_cast<std::uint32_t>((row - table.first_row) * table.tiles +
                                                 kernels::col_of(ids[i]) / tile_);
    table.pages[0][page].state = PageState::dirty;
    if (state_floats_ > 0) table.pages[1][page].state = PageState::dirty;
  }
  return taken;
}

void Pager::drop_state(std::uint32_t generation) {
  Table& table = tables_.at(generation);
  table.frozen = true;
  std::vector<Page>& pages = table.pages[index(PageKind::state)];
  for (std::uint32_t i = 0; i < pages.size(); ++i) {
    Page& page = pages[i];
    if (page.stored) removed_.push_back(page_id(PageKind::state, table, i));
    if (in_frame(page.state)) drop_frame(PageKind::state, generation, i);
    if (page.state == PageState::spilled) spill_->free(page.slot);
    page = Page{};
  }
}

// The bytes of a page that changed since the last commit, or is in a frame. A spilled page is read
// into the payload buffer.
std::span<const std::byte> Pager::payload(PageKind kind, Table& table, std::uint32_t page) {
  const Page& p = table.pages[index(kind)][page];
  const std::size_t bytes = page_bytes(kind);
  if (in_frame(p.state)) {
    return std::as_bytes(
        std::span<const float>(kinds_[index(kind)].slab->frame(p.frame), bytes / sizeof(float)));
  }
  payload_buffer_.resize(bytes);
  const storage::Status read = spill_->read(p.slot, payload_buffer_);
  if (!read.ok()) throw StorageError(about(page_id(kind, table, page), read));
  return payload_buffer_;
}

std::vector<Pager::WrittenPage> Pager::written_pages(std::uint32_t generation) {
  Table& table = tables_.at(generation);
  std::vector<WrittenPage> written;
  for (std::uint32_t i = 0; i < table.pages[0].size(); ++i) {
    const Page& page = table.pages[0][i];
    const bool changed = page.state == PageState::dirty || page.state == PageState::spilled;
    if (!changed && !page.stored) continue;
    const storage::PageId id = page_id(PageKind::weights, table, i);
    written.push_back({id.row, id.tile,
                       changed ? storage::digest_of(payload(PageKind::weights, table, i))
                               : value_or_throw(store_->page_digest(id))});
  }
  return written;
}

void Pager::add_to_commit(storage::CommitRequest& request) {
  for (PageKind kind : kKinds) {
    for (Table& table : tables_) {
      const std::vector<Page>& pages = table.pages[index(kind)];
      for (std::uint32_t i = 0; i < pages.size(); ++i) {
        if (pages[i].state != PageState::dirty && pages[i].state != PageState::spilled) continue;
        request.pages.push_back(
            {page_id(kind, table, i), shape(kind),
             [this, kind, &table, i]() -> storage::Result<std::span<const std::byte>> {
               try {
                 return payload(kind, table, i);
               } catch (const StorageError& error) {
                 return storage::Status(error.code(), error.what());
               }
             }});
      }
    }
  }
  request.removed_pages.insert(request.removed_pages.end(), removed_.begin(), removed_.end());
}

void Pager::committed() {
  for (PageKind kind : kKinds) {
    for (Table& table : tables_) {
      for (Page& page : table.pages[index(kind)]) {
        if (page.state == PageState::dirty) {
          page.state = PageState::resident;
          page.stored = true;
        } else if (page.state == PageState::spilled) {
          spill_->free(page.slot);
          page.state = PageState::absent;
          page.stored = true;
        }
      }
    }
  }
  removed_.clear();
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
