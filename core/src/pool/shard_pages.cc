// SPDX-License-Identifier: Apache-2.0
// Generations that come and go as a whole: their pages in and out of the pool.
#include "perennial/core/pool.h"
#include "pool/pager.h"

namespace perennial {

std::vector<WrittenPage> Pool::written_pages(std::uint32_t index) {
  const Generation& g = generation(index);
  const std::uint32_t tiles = options_.tiles(g.cols);
  fetch();
  std::vector<WrittenPage> written;
  for (const Pager::WrittenPage& page : pager_->written_pages(index)) {
    written.push_back({(page.row - g.first_row) * tiles + page.tile, page.digest});
  }
  return written;
}

std::size_t Pool::payload_bytes() const {
  return static_cast<std::size_t>(options_.tile() * options_.layout().record_bytes());
}

void Pool::read_page(std::uint32_t index, std::uint32_t page, std::span<std::byte> payload) const {
  (void)generation(index);
  fetch();
  pager_->copy_page(index, page, payload);
}

void Pool::initial_page(const Generation& generation, std::uint32_t page,
                        std::span<std::byte> payload) const {
  pager_->initial_page(generation, page, payload);
}

const Generation& Pool::add_frozen(const ForeignGeneration& content,
                                   const storage::Digest& router_digest) {
  Generation generation = next_generation(content.rows, content.cols, content.recipe);
  generation.state = GenerationState::frozen;
  generation.router_digest = router_digest;
  generation.digest = shard_digest(generation, content.written);
  pager_->add_generation(generation);
  try {
    std::vector<std::byte> payload(payload_bytes());
    for (const WrittenPage& written : content.written) {
      content.read(written.page, payload);
      const storage::Digest found = storage::digest_of(payload);
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
