// SPDX-License-Identifier: Apache-2.0
// Pinning, filling and evicting frames.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <mutex>

#include "perennial/kernels/philox.h"
#include "pool/pager.h"

namespace perennial {

using storage::PageKind;

void PagePin::release() {
  for (const Item& item : items_) pager_->unpin(item);
  items_.clear();
  pager_ = nullptr;
}

void Pager::unlink(Kind& kind, std::uint32_t frame) {
  Frame& f = kind.frames[frame];
  (f.newer == kNoFrame ? kind.newest : kind.frames[f.newer].older) = f.older;
  (f.older == kNoFrame ? kind.oldest : kind.frames[f.older].newer) = f.newer;
}

void Pager::link_newest(Kind& kind, std::uint32_t frame) {
  Frame& f = kind.frames[frame];
  f.newer = kNoFrame;
  f.older = kind.newest;
  (kind.newest == kNoFrame ? kind.oldest : kind.frames[kind.newest].newer) = frame;
  kind.newest = frame;
}

// A frame for a new page: a free one, a new one within the budget, or the least recently used one
// that nobody has pinned. kNoFrame when every frame is pinned.
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
    while (victim != kNoFrame &&
           tables_[k.frames[victim].generation].pages[index(kind)][k.frames[victim].page].pins >
               0) {
      victim = k.frames[victim].newer;
    }
    if (victim == kNoFrame) return kNoFrame;
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
    if (frame == kNoFrame) return false;
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

}  // namespace perennial
