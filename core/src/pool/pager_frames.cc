// SPDX-License-Identifier: Apache-2.0
// From experts to pages: pinning, prefetching, initial values, and what freezing asks.
#include <algorithm>
#include <cstring>

#include "perennial/kernels/bfloat16.h"
#include "perennial/kernels/philox.h"
#include "pool/pager.h"

namespace perennial {

using storage::PageKind;

void Pager::fill_initial(const Table& table, std::uint32_t page, std::byte* frame) const {
  const kernels::ExpertLayout layout = options_.layout();
  const bool bf16 = layout.type == kernels::WeightType::bf16;
  std::vector<float> rounded(bf16 ? static_cast<std::size_t>(layout.stride()) : 0);
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
    std::byte* const record = frame + i * layout.record_bytes();
    float* const expert = bf16 ? rounded.data() : reinterpret_cast<float*>(record);
    const auto col = static_cast<std::uint32_t>((page % table.tiles) * tile_ + i);
    draw(col, 0, recipe.u_scale, expert + layout.u(), layout.width * layout.d_in);
    draw(col, 1, recipe.v_scale, expert + layout.v(), layout.width * layout.d_out);
    if (layout.glu) {
      draw(col, 2, recipe.u_scale, expert + layout.w(), layout.width * layout.d_in);
    }
    std::fill(expert + layout.used(), expert + layout.stride(), 0.0F);
    if (bf16) {
      kernels::round_to_bfloat16(layout.stride(), expert,
                                 reinterpret_cast<kernels::BFloat16*>(record));
    }
  }
}

std::uint64_t Pager::page_of(std::int64_t id) const {
  const std::uint32_t row = kernels::row_of(id);
  const std::vector<kernels::PageSpan>& spans = spans_[kind_index(PageKind::weights)];
  const auto generation =
      static_cast<std::uint32_t>(kernels::span_of(spans.data(), spans.size(), row) - spans.data());
  const Table& table = tables_[generation];
  const auto page = (row - table.first_row) * table.tiles +
                    kernels::col_of(id) / static_cast<std::uint32_t>(tile_);
  return PageKey{PageKind::weights, table.region, page}.packed();
}

// More tokens need not be looked at: they hardly fit, and would be looked at again.
std::int64_t Pager::token_limit(std::int64_t slots) const {
  return std::max<std::int64_t>(16, 8 * (pairs() / slots));
}

std::int64_t Pager::pin_tokens(const std::int64_t* ids, std::int64_t slots, std::int64_t begin,
                               std::int64_t end, PagePin& pin, PinUse use) {
  pin.release();
  end = std::min(end, begin + token_limit(slots));
  pin.pages_.clear();
  for (std::int64_t i = begin * slots; i < end * slots; ++i) pin.pages_.push_back(page_of(ids[i]));
  // Half of the budget is left to the tokens after these, which are fetched meanwhile.
  const std::int64_t most =
      budget_bytes_ == 0 ? kNoFrame : std::min<std::int64_t>(pairs() / 2, kNoFrame);
  const auto pinned = cache_.pin({.pages = pin.pages_,
                                  .group = static_cast<std::size_t>(slots),
                                  .use = use,
                                  .most = static_cast<std::uint32_t>(most)},
                                 pin.set_);
  if (pinned.ok()) return begin + static_cast<std::int64_t>(*pinned);
  if (pinned.status().code() == storage::StatusCode::invalid_argument) require_slots(slots);
  throw StorageError(pinned.status());
}

void Pager::prefetch_tokens(const std::int64_t* ids, std::int64_t slots, std::int64_t begin,
                            std::int64_t end) {
  if (budget_bytes_ == 0) return;
  end = std::min(end, begin + token_limit(slots));
  std::vector<std::uint64_t> pages;
  pages.reserve(static_cast<std::size_t>((end - begin) * slots));
  for (std::int64_t i = begin * slots; i < end * slots; ++i) pages.push_back(page_of(ids[i]));
  cache_.prefetch(pages);
}

std::size_t Pager::pin_for_update(std::span<const std::int64_t> ids, PagePin& pin) {
  // Pages pinned at once: few enough that the pin's own tables stay in the second-level cache, many
  // enough that threads share out their experts evenly.
  constexpr std::int64_t kPages = 4096;
  pin.release();
  pin.pages_.clear();
  pin.experts_.clear();
  pin.ends_.clear();
  const std::size_t group = state_floats_ > 0 ? 2 : 1;
  const auto most = static_cast<std::size_t>(std::min(kPages, token_limit(1)));
  const auto tile = static_cast<std::uint32_t>(tile_);
  std::uint64_t last = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    PageKey page = PageKey::of(page_of(ids[i]));
    if (i == 0 || page.packed() != last) {
      if (pin.ends_.size() == most) break;
      last = page.packed();
      pin.pages_.push_back(last);
      page.kind = PageKind::state;
      if (group == 2) pin.pages_.push_back(page.packed());
      pin.ends_.push_back(i);
      if (tile <= 64) pin.experts_.push_back(0);
    }
    pin.ends_.back() = i + 1;
    if (tile <= 64) pin.experts_.back() |= std::uint64_t{1} << kernels::col_of(ids[i]) % tile;
  }
  const auto pinned = cache_.pin(
      {.pages = pin.pages_, .group = group, .use = PinUse::write, .experts = pin.experts_},
      pin.set_);
  if (pinned.ok()) return *pinned == 0 ? 0 : pin.ends_[*pinned - 1];
  if (pinned.status().code() == storage::StatusCode::invalid_argument) require_slots(1);
  throw StorageError(pinned.status());
}

void Pager::drop_state(std::uint32_t generation) {
  const PageCache::Exclusive alone(cache_);
  cache_.drop(PageKind::state, tables_.at(generation).region);
}

std::vector<WrittenPage> Pager::written_pages(std::uint32_t generation) {
  std::vector<WrittenPage> written;
  for (const std::uint32_t page : held_pages(generation, PageKind::weights)) {
    WrittenPage& found = written.emplace_back();
    found.page = page;
    const bool changed = value_or_throw(cache_.read_changed(
        key(PageKind::weights, generation, page),
        [&](std::span<const std::byte> bytes) { found.digest = storage::digest_of(bytes); }));
    if (!changed) {
      found.digest =
          value_or_throw(store_->page_digest(page_id(PageKind::weights, generation, page)));
    }
  }
  return written;
}

void Pager::copy_page(std::uint32_t generation, std::uint32_t page, std::span<std::byte> payload,
                      PageKind kind) const {
  throw_if_failed(cache_.copy(key(kind, generation, page), payload));
}

void Pager::initial_page(const Generation& generation, std::uint32_t page,
                         std::span<std::byte> payload) const {
  const Table table{0, generation.first_row, generation.rows, options_.tiles(generation.cols),
                    generation.recipe};
  fill_initial(table, page, payload.data());
}

std::vector<std::uint32_t> Pager::held_pages(std::uint32_t generation, PageKind kind) const {
  const Table& table = tables_.at(generation);
  std::vector<std::uint32_t> held;
  for (std::uint32_t page = 0; page < table.pages(); ++page) {
    if (cache_.written({kind, table.region, page})) held.push_back(page);
  }
  return held;
}

void Pager::install_page(std::uint32_t generation, std::uint32_t page,
                         std::span<const std::byte> payload, PageKind kind) {
  const std::uint64_t packed = key(kind, generation, page).packed();
  PagePin pin;
  const auto pinned = cache_.pin({.pages = {&packed, 1}, .use = PinUse::write}, pin.set_);
  if (!pinned.ok()) {
    require_slots(1);
    throw StorageError(pinned.status());
  }
  std::memcpy(cache_.frames(kind, tables_.at(generation).region)[page], payload.data(),
              payload.size());
}

}  // namespace perennial
