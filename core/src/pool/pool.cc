// SPDX-License-Identifier: Apache-2.0
// Generations: growing, freezing, digests, and the pool's own record in the store.
#include "perennial/core/pool.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cstring>
#include <limits>
#include <utility>

#include "perennial/kernels/bfloat16.h"
#include "perennial/kernels/optimizer.h"
#include "pool/host_place.h"
#include "pool/pager.h"

namespace perennial {

EnumNames<Distribution> enum_names(Distribution) {
  return {{Distribution::normal, "normal"}, {Distribution::uniform, "uniform"}};
}
EnumNames<GenerationState> enum_names(GenerationState) {
  return {{GenerationState::open, "open"},
          {GenerationState::frozen, "frozen"},
          {GenerationState::unlearned, "unlearned"}};
}
namespace kernels {
EnumNames<WeightType> enum_names(WeightType) {
  return {{WeightType::f32, "f32"}, {WeightType::bf16, "bf16"}};
}
}  // namespace kernels

namespace {

namespace json = boost::json;

// Adam's state is the largest.
std::int64_t largest_record_bytes(const PoolOptions& options) {
  const kernels::UpdateRule adam{.algorithm = kernels::UpdateAlgorithm::adam};
  return kernels::update_state_floats(adam, options.layout()) *
         static_cast<std::int64_t>(sizeof(float));
}

}  // namespace

std::int64_t PoolOptions::tile() const {
  const auto limit = static_cast<std::int64_t>(storage::kMaxPageBytes);
  if (largest_record_bytes(*this) > limit) {
    throw InvalidOptions(
        "an expert of d_in " + std::to_string(d_in) + ", d_out " + std::to_string(d_out) +
        " and expert_width " + std::to_string(expert_width) + " needs " +
        std::to_string(largest_record_bytes(*this)) +
        " bytes of optimizer state; a page holds at most " + std::to_string(limit));
  }
  return std::clamp(std::min(cols, page_bytes / layout().record_bytes()), std::int64_t{1},
                    limit / largest_record_bytes(*this));
}

std::uint32_t PoolOptions::tiles(std::uint32_t columns) const {
  const auto width = static_cast<std::uint64_t>(tile());
  return static_cast<std::uint32_t>((columns + width - 1) / width);
}

std::uint64_t PoolOptions::pages(std::uint32_t rows, std::uint32_t columns) const {
  const std::uint64_t pages = std::uint64_t{rows} * tiles(columns);
  if (pages > std::uint64_t{1} << 31) {
    throw InvalidOptions("a generation of " + std::to_string(rows) + " rows x " +
                         std::to_string(columns) + " cols has " + std::to_string(pages) +
                         " pages; at most 2147483648 can be numbered");
  }
  return pages;
}

Pool::Pool(std::uint32_t id, const PoolOptions& options, std::shared_ptr<PageMemory> memory,
           std::string name, Memory whose)
    : id_(id),
      name_(std::move(name)),
      options_(options),
      memory_(std::move(memory)),
      whose_(whose),
      in_store_(memory_->store() != nullptr) {
  require_name("pool", name_);
  validate_ranges(options_);
  pager_ = std::make_unique<Pager>(id, options_, *memory_);
  place_ = std::make_shared<HostPlace>(*this);
  memory_->join(id_, [this] { fetch(); });
}

Pool::Pool(std::uint32_t id, const PoolOptions& options, std::shared_ptr<PageMemory> memory,
           std::string name)
    : Pool(id, options, std::move(memory), std::move(name), Memory::shared) {
  require_new();
}

Pool::Pool(std::uint32_t id, const PoolOptions& options, const storage::PageReader* store,
           std::int64_t budget_bytes, std::string name)
    : Pool(id, options, std::make_shared<PageMemory>(store, budget_bytes), std::move(name),
           Memory::own) {
  require_new();
}

Pool::~Pool() { memory_->leave(id_); }

std::int64_t Pool::state_floats() const { return pager_->state_floats(); }

const Generation& Pool::generation(std::uint32_t index) const {
  if (index >= generations_.size()) {
    throw Error("generation " + std::to_string(index) + " does not exist; the pool has " +
                std::to_string(generations_.size()));
  }
  return generations_[index];
}

std::optional<std::uint32_t> Pool::open_generation() const {
  if (generations_.empty() || generations_.back().state != GenerationState::open) {
    return std::nullopt;
  }
  return generations_.back().index;
}

std::uint32_t Pool::oldest_kept() const {
  for (const Generation& g : generations_) {
    if (g.state != GenerationState::unlearned) return g.index;
  }
  return 0;
}

void Pool::require_one_reader(std::string_view why) const {
  if (readers_ == 1) return;
  throw Error("pool '" + name_ + "' is read by " + std::to_string(readers_) + " layers" +
              std::string(why));
}

void Pool::fetch() const { place_->fetch(); }

at::Device Pool::device() const { return place_->device(); }

void Pool::place(std::shared_ptr<ExpertPlace> place) {
  fetch();
  clear_gradients();
  place_ = place != nullptr ? std::move(place) : std::make_shared<HostPlace>(*this);
}

std::optional<std::uint32_t> Pool::newest_trained() const {
  fetch();
  for (std::size_t g = generations_.size(); g-- > 0;) {
    if (pager_->any_written(static_cast<std::uint32_t>(g))) return static_cast<std::uint32_t>(g);
  }
  return std::nullopt;
}

std::uint64_t Pool::experts() const {
  std::uint64_t experts = 0;
  for (const Generation& g : generations_) {
    if (g.state != GenerationState::unlearned) experts += std::uint64_t{g.rows} * g.cols;
  }
  return experts;
}

std::uint64_t Pool::pages() const {
  std::uint64_t pages = 0;
  for (const Generation& g : generations_) {
    if (g.state != GenerationState::unlearned) pages += options_.pages(g.rows, g.cols);
  }
  return pages;
}

bool Pool::exists(std::int64_t id) const {
  return std::any_of(generations_.begin(), generations_.end(), [&](const Generation& g) {
    return g.state != GenerationState::unlearned && kernels::row_of(id) >= g.first_row &&
           kernels::row_of(id) - g.first_row < g.rows && kernels::col_of(id) < g.cols;
  });
}

Generation Pool::next_generation(std::uint32_t rows, std::uint32_t cols,
                                 const Recipe& recipe) const {
  if (open_generation()) {
    throw Error("generation " + std::to_string(*open_generation()) +
                " is open; freeze it before the pool grows");
  }
  if (rows == 0 || cols == 0) {
    throw InvalidOptions("a generation needs at least one row and one column, not " +
                         std::to_string(rows) + " x " + std::to_string(cols));
  }
  validate_ranges(recipe);
  if (recipe.u_scale == 0 && recipe.v_scale == 0) {
    throw InvalidOptions("u_scale and v_scale are both 0: such experts never learn");
  }
  const std::uint64_t first = generations_.empty() ? 0
                                                   : std::uint64_t{generations_.back().first_row} +
                                                         generations_.back().rows;
  if (first + rows > std::numeric_limits<std::uint32_t>::max()) {
    throw InvalidOptions("row ids end at 2^32: " + std::to_string(rows) + " more rows do not fit");
  }
  (void)options_.pages(rows, cols);
  Generation generation;
  generation.index = static_cast<std::uint32_t>(generations_.size());
  generation.first_row = static_cast<std::uint32_t>(first);
  generation.rows = rows;
  generation.cols = cols;
  generation.recipe = recipe;
  return generation;
}

const Generation& Pool::grow(std::uint32_t rows, std::uint32_t cols, const Recipe& recipe) {
  Generation generation = next_generation(rows, cols, recipe);
  generation.recipe.origin_pool = id_;
  generation.recipe.origin_row = generation.first_row;
  pager_->add_generation(generation);
  generations_.push_back(generation);
  return generations_.back();
}

void Pool::require_columns(std::uint32_t cols) const {
  const std::optional<std::uint32_t> open = open_generation();
  if (!open) throw Error("no generation is open: a frozen one cannot get more columns");
  const Generation& generation = generations_[*open];
  if (cols == 0 ||
      std::uint64_t{generation.cols} + cols > std::numeric_limits<std::uint32_t>::max()) {
    throw InvalidOptions("cannot append " + std::to_string(cols) + " columns to " +
                         std::to_string(generation.cols));
  }
  (void)options_.pages(generation.rows, generation.cols + cols);
}

void Pool::grow_columns(std::uint32_t cols) {
  require_columns(cols);
  Generation& generation = generations_.back();
  fetch();
  generation.cols += cols;
  pager_->widen_generation(generation);
}

storage::Digest Pool::freeze(const storage::Digest& router_digest) {
  const std::optional<std::uint32_t> open = open_generation();
  if (!open) throw Error("no generation is open: there is nothing to freeze");
  return freeze(router_digest, written_pages(*open));
}

storage::Digest Pool::freeze(const storage::Digest& router_digest,
                             const std::vector<WrittenPage>& written) {
  Generation& generation = generations_.back();
  clear_gradients();
  generation.router_digest = router_digest;
  generation.digest = shard_digest(generation, written);
  generation.state = GenerationState::frozen;
  pager_->drop_state(generation.index);
  return generation.digest;
}

storage::Digest Pool::shard_digest(std::uint32_t index) {
  return shard_digest(generation(index), written_pages(index));
}

storage::Digest Pool::shard_digest(const Generation& g,
                                   const std::vector<WrittenPage>& written) const {
  const std::uint32_t tiles = options_.tiles(g.cols);
  storage::Hasher hasher;
  hasher.update(std::string_view("perennial shard 1"));
  hasher.update(json::serialize(perennial::to_json(g.recipe)));
  hasher.update(std::uint64_t{g.first_row}).update(std::uint64_t{g.rows});
  hasher.update(std::uint64_t{g.cols}).update(g.router_digest);
  for (const WrittenPage& page : written) {
    hasher.update(std::uint64_t{g.first_row} + page.page / tiles);
    hasher.update(std::uint64_t{page.page % tiles}).update(page.digest);
  }
  return hasher.finish();
}

ExpertValues Pool::experts_at(const std::vector<std::int64_t>& ids) {
  const kernels::ExpertLayout layout = options_.layout();
  const auto n = static_cast<std::int64_t>(ids.size());
  ExpertValues values;
  values.u = at::empty({n, layout.width * layout.d_in});
  values.v = at::empty({n, layout.width * layout.d_out});
  if (layout.glu) values.w = at::empty({n, layout.width * layout.d_in});
  for (const std::int64_t id : ids) {
    if (!exists(id)) throw Error("expert " + std::to_string(id) + " does not exist");
  }
  fetch();
  PagePin pin;
  const auto copy = [&](const float* record, std::int64_t at, at::Tensor& to, std::int64_t row) {
    const std::int64_t width = to.size(1);
    float* out = to.data_ptr<float>() + row * width;
    if (layout.type == kernels::WeightType::bf16) {
      kernels::promote(width, reinterpret_cast<const kernels::BFloat16*>(record) + at, out);
    } else {
      std::memcpy(out, record + at, static_cast<std::size_t>(width) * sizeof(float));
    }
  };
  for (std::int64_t begin = 0; begin < n;) {
    const std::int64_t end = pager_->pin_tokens(ids.data(), 1, begin, n, pin);
    const kernels::FrameTable table = pager_->table(storage::PageKind::weights);
    for (std::int64_t i = begin; i < end; ++i) {
      const float* record = table.record(ids[static_cast<std::size_t>(i)]);
      copy(record, layout.u(), values.u, i);
      copy(record, layout.v(), values.v, i);
      if (layout.glu) copy(record, layout.w(), values.w, i);
    }
    begin = end;
  }
  return values;
}

CompactGradient Pool::compact_gradient() { return place_->compact_gradient(); }

void Pool::zero_grad() { place_->clear_gradients(); }

void Pool::clear_gradients() {
  zero_grad();
  place_->release_gradient_memory();
}

}  // namespace perennial
