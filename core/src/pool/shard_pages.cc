// SPDX-License-Identifier: Apache-2.0
// Generations that come and go as a whole: their pages in and out of the pool.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <string>
#include <utility>

#include "perennial/core/pool.h"
#include "pool/pager.h"

namespace perennial {

using storage::PageKind;

namespace {

std::span<const std::byte> payload_of(const PageContents& contents, std::int64_t i) {
  return {static_cast<const std::byte*>(contents.payloads.const_data_ptr()) +
              i * contents.payloads.size(1),
          static_cast<std::size_t>(contents.payloads.size(1))};
}

// Throws DataError for pages that the generations cannot have.
void require_places(const PoolOptions& options, const std::vector<Generation>& generations,
                    const PageContents& contents, PageKind kind) {
  const auto refuse = [](const std::string& why) {
    throw DataError("the pages of an archive do not fit its generations: " + why);
  };
  const at::Tensor &places = contents.places, &payloads = contents.payloads;
  if (places.dim() != 2 || places.size(1) != 2 || places.scalar_type() != at::kLong ||
      payloads.dim() != 2 || payloads.size(0) != places.size(0) ||
      payloads.scalar_type() != at::kByte || !places.is_contiguous() || !payloads.is_contiguous()) {
    refuse("they are " + c10::str(places.sizes()) + " places and " + c10::str(payloads.sizes()) +
           " payloads");
  }
  const auto* place = places.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < places.size(0); ++i, place += 2) {
    const bool fits = place[0] >= 0 && std::cmp_less(place[0], generations.size()) && [&] {
      const Generation& g = generations[static_cast<std::size_t>(place[0])];
      const bool may = kind == PageKind::weights ? g.state != GenerationState::unlearned
                                                 : g.state == GenerationState::open;
      return may && place[1] >= 0 && std::cmp_less(place[1], options.pages(g.rows, g.cols));
    }();
    if (!fits) {
      refuse("generation " + std::to_string(place[0]) + " has no page " + std::to_string(place[1]));
    }
  }
}

// Throws DataError for a frozen generation that would have other pages than it froze with.
void require_digests(const Pool& pool, const std::vector<Generation>& generations,
                     const PageContents& weights) {
  std::vector<std::vector<WrittenPage>> written(generations.size());
  const auto* place = weights.places.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < weights.places.size(0); ++i, place += 2) {
    written[static_cast<std::size_t>(place[0])].push_back(
        {static_cast<std::uint32_t>(place[1]), storage::digest_of(payload_of(weights, i))});
  }
  for (const Generation& g : generations) {
    if (g.state == GenerationState::frozen && pool.shard_digest(g, written[g.index]) != g.digest) {
      throw DataError("generation " + std::to_string(g.index) +
                      " of the archive is not what froze: its digest has changed");
    }
  }
}

}  // namespace

std::vector<WrittenPage> Pool::written_pages(std::uint32_t index) {
  (void)generation(index);
  fetch();
  return pager_->written_pages(index);
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

PageContents Pool::contents(PageKind kind) const {
  fetch();
  std::vector<std::pair<std::uint32_t, std::uint32_t>> held;
  for (const Generation& g : generations_) {
    for (const std::uint32_t page : pager_->held_pages(g.index, kind))
      held.emplace_back(g.index, page);
  }
  const auto n = static_cast<std::int64_t>(held.size());
  const std::size_t bytes =
      kind == PageKind::weights ? pager_->weights_page_bytes() : pager_->state_page_bytes();
  PageContents contents{at::empty({n, 2}, at::kLong),
                        at::empty({n, static_cast<std::int64_t>(bytes)}, at::kByte)};
  auto* place = contents.places.mutable_data_ptr<std::int64_t>();
  auto* payload = static_cast<std::byte*>(contents.payloads.mutable_data_ptr());
  for (const auto& [generation, page] : held) {
    *place++ = generation;
    *place++ = page;
    pager_->copy_page(generation, page, {payload, bytes}, kind);
    payload += bytes;
  }
  return contents;
}

void Pool::restore(const std::vector<Generation>& generations, const PageContents& weights,
                   const PageContents& state) {
  if (in_store_) {
    throw Error(
        "a store holds the layer, and what an archive brings would not be in it: load the archive "
        "into a layer in memory, or restore a state of the store");
  }
  if (!device().is_cpu()) {
    throw Error("the layer is on " + device().str() +
                "; take it to the CPU with place_on(), then load the archive");
  }
  require_places(options_, generations, weights, PageKind::weights);
  require_places(options_, generations, state, PageKind::state);
  require_digests(*this, generations, weights);
  auto pager = std::make_unique<Pager>(id_, options_, *memory_);
  for (const Generation& g : generations) pager->add_generation(g);
  // Without pages of it there is none to fit.
  const std::int64_t floats =
      state.places.size(0) > 0
          ? state.payloads.size(1) / options_.tile() / static_cast<std::int64_t>(sizeof(float))
          : state_floats();
  if (state_floats() != 0 && floats != state_floats()) {
    throw Error("the archive has optimizer state of " + std::to_string(floats) +
                " floats an expert; the optimizer that is attached needs " +
                std::to_string(state_floats()));
  }
  pager->attach_state(floats);
  const auto install = [&](const PageContents& contents, PageKind kind, std::size_t bytes) {
    const auto* place = contents.places.const_data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < contents.places.size(0); ++i, place += 2) {
      const std::span<const std::byte> payload = payload_of(contents, i);
      if (payload.size() != bytes) {
        throw DataError("a page of the archive has " + std::to_string(payload.size()) +
                        " bytes, not " + std::to_string(bytes));
      }
      pager->install_page(static_cast<std::uint32_t>(place[0]),
                          static_cast<std::uint32_t>(place[1]), payload, kind);
    }
  };
  install(weights, PageKind::weights, pager->weights_page_bytes());
  install(state, PageKind::state, pager->state_page_bytes());
  clear_gradients();
  experts_changed();
  generations_ = generations;
  pager_ = std::move(pager);
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

void Pool::remove_added() {
  pager_->remove_last_generation();
  generations_.pop_back();
}

}  // namespace perennial
