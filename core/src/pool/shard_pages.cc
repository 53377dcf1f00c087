// SPDX-License-Identifier: Apache-2.0
// Generations that come and go as a whole: their pages in and out of the pool.
#include <cstring>

#include "perennial/core/pool.h"
#include "pool/pager.h"

namespace perennial {

using storage::PageKind;

void Pager::copy_page(std::uint32_t generation, std::uint32_t page,
                      std::span<float> payload) const {
  const Table& table = tables_.at(generation);
  const Page& p = table.pages[index(PageKind::weights)].at(page);
  storage::Status read;
  switch (p.state) {
    case PageState::initial:
      fill_initial(PageKind::weights, table, page, payload.data());
      break;
    case PageState::absent:
      read = store_->read_page(page_id(PageKind::weights, table, page),
                               std::as_writable_bytes(payload));
      break;
    case PageState::spilled:
      read = spill_->read(p.slot, std::as_writable_bytes(payload));
      break;
    case PageState::resident:
    case PageState::dirty:
      std::memcpy(payload.data(), kinds_[index(PageKind::weights)].slab->frame(p.frame),
                  payload.size_bytes());
      break;
  }
  if (!read.ok()) throw StorageError(about(page_id(PageKind::weights, table, page), read));
}

void Pager::initial_page(const Generation& generation, std::uint32_t page,
                         std::span<float> payload) const {
  Table table;
  table.tiles = options_.tiles(generation.cols);
  table.recipe = generation.recipe;
  fill_initial(PageKind::weights, table, page, payload.data());
}

void Pager::install_page(std::uint32_t generation, std::uint32_t page,
                         std::span<const float> payload) {
  constexpr std::size_t kWeights = static_cast<std::size_t>(PageKind::weights);
  PagePin pin;
  pin.pager_ = this;
  ++serial_;
  std::vector<Missing> missing;
  if (!take(PageKind::weights, generation, page, pin, missing)) require_slots(1);
  Table& table = tables_[generation];
  Page& p = table.pages[kWeights][page];
  float* const frame = kinds_[kWeights].slab->frame(p.frame);
  std::memcpy(frame, payload.data(), payload.size_bytes());
  table.frames[kWeights][page] = frame;
  p.state = PageState::dirty;
}

void Pager::remove_last_generation() {
  const auto last = static_cast<std::uint32_t>(tables_.size() - 1);
  for (const PageKind kind : kPageKinds) {
    std::vector<Page>& pages = tables_[last].pages[index(kind)];
    for (std::uint32_t i = 0; i < pages.size(); ++i) {
      if (in_frame(pages[i].state)) drop_frame(kind, last, i);
      if (pages[i].state == PageState::spilled) spill_->free(pages[i].slot);
    }
    spans_[index(kind)].pop_back();
  }
  tables_.pop_back();
}

std::vector<WrittenPage> Pool::written_pages(std::uint32_t index) {
  const Generation& g = generation(index);
  const std::uint32_t tiles = options_.tiles(g.cols);
  std::vector<WrittenPage> written;
  for (const Pager::WrittenPage& page : pager_->written_pages(index)) {
    written.push_back({(page.row - g.first_row) * tiles + page.tile, page.digest});
  }
  return written;
}

std::size_t Pool::page_floats() const {
  return static_cast<std::size_t>(options_.tile() * options_.layout().stride());
}

void Pool::read_page(std::uint32_t index, std::uint32_t page, std::span<float> payload) const {
  (void)generation(index);
  pager_->copy_page(index, page, payload);
}

void Pool::initial_page(const Generation& generation, std::uint32_t page,
                        std::span<float> payload) const {
  pager_->initial_page(generation, page, payload);
}

const Generation& Pool::add_frozen(const ForeignGeneration& content,
                                   const storage::Digest& router_digest) {
  Generation generation = next_generation(content.rows, content.cols, content.recipe);
  generation.frozen = true;
  generation.router_digest = router_digest;
  generation.digest = shard_digest(generation, content.written);
  pager_->add_generation(generation);
  try {
    std::vector<float> payload(page_floats());
    for (const WrittenPage& written : content.written) {
      content.read(written.page, payload);
      const storage::Digest found = storage::digest_of(std::as_bytes(std::span(payload)));
      if (found != written.digest) {
        throw DataError("page " + std::to_string(written.page) + " has digest " + found.hex() +
                        ", not " + written.digest.hex());
      }
      pager_->install_page(generation.index, written.page, payload);
    }
    generations_.push_back(generation);
  } catch (...) {
    pager_->remove_last_generation();
    throw;
  }
  return generations_.back();
}

}  // namespace perennial
