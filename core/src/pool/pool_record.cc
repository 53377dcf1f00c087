// SPDX-License-Identifier: Apache-2.0
// The pool's record in a store: written, read, and edited when generations go.
#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/value_to.hpp>
#include <charconv>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "perennial/core/dense_state.h"
#include "perennial/core/pool.h"
#include "pool/pager.h"
#include "record.h"

namespace perennial {

namespace json = boost::json;

namespace {

constexpr const char* kFrozen = "frozen";        // that it does not train: also when unlearned
constexpr const char* kUnlearned = "unlearned";  // absent but where it is true
constexpr const char* kGenerations = "generations";
constexpr const char* kName = "name";  // absent where it is the default

constexpr std::string_view kRecords = "pool/";

std::string record_name(std::uint32_t id) { return std::string(kRecords) + std::to_string(id); }

json::object to_json(const Generation& generation) {
  const bool digests = generation.state == GenerationState::frozen;
  json::object object{{"first_row", generation.first_row},
                      {"rows", generation.rows},
                      {"cols", generation.cols},
                      {kFrozen, generation.state != GenerationState::open},
                      {"digest", digests ? generation.digest.hex() : ""},
                      {"router_digest", digests ? generation.router_digest.hex() : ""},
                      {"recipe", perennial::to_json(generation.recipe)}};
  if (generation.state == GenerationState::unlearned) object[kUnlearned] = true;
  return object;
}

Generation generation_from_json(std::uint32_t index, const json::object& object) {
  Generation generation;
  generation.index = index;
  generation.first_row = json::value_to<std::uint32_t>(object.at("first_row"));
  generation.rows = json::value_to<std::uint32_t>(object.at("rows"));
  generation.cols = json::value_to<std::uint32_t>(object.at("cols"));
  if (object.at(kFrozen).as_bool()) generation.state = GenerationState::frozen;
  if (object.contains(kUnlearned)) generation.state = GenerationState::unlearned;
  generation.recipe = from_json<Recipe>(object.at("recipe").as_object());
  if (generation.state == GenerationState::frozen) {
    generation.digest = digest_from_hex(object.at("digest").as_string());
    generation.router_digest = digest_from_hex(object.at("router_digest").as_string());
  }
  return generation;
}

}  // namespace

namespace {

struct PoolRecord {
  std::string name;
  PoolOptions options;
  std::vector<Generation> generations;
};

PoolRecord read_pool_record(std::uint32_t id, const storage::PageReader& store) {
  const std::string name = record_name(id);
  const json::object record = read_record(store, name);
  return from_record(name, [&] {
    PoolRecord pool;
    pool.options = from_json<PoolOptions>(record.at("options").as_object());
    validate_ranges(pool.options);
    (void)pool.options.tile();
    const json::value* named = record.if_contains(kName);
    pool.name = named == nullptr ? std::string(kDefaultName) : json::value_to<std::string>(*named);
    require_name("pool", pool.name);
    std::vector<Generation>& generations = pool.generations;
    for (const json::value& value : record.at(kGenerations).as_array()) {
      const auto index = static_cast<std::uint32_t>(generations.size());
      Generation generation = generation_from_json(index, value.as_object());
      validate_ranges(generation.recipe);
      const bool follows =
          index == 0 ? generation.first_row == 0
                     : generation.first_row == std::uint64_t{generations.back().first_row} +
                                                   generations.back().rows &&
                           generations.back().state != GenerationState::open;
      if (!follows || generation.rows == 0 || generation.cols == 0) {
        throw Error("generation " + std::to_string(index) + " does not follow the one before");
      }
      generations.push_back(std::move(generation));
    }
    return pool;
  });
}

// Takes the pages of a generation that goes.
void remove_pages(const storage::PageReader& store, std::uint32_t id, const Generation& g,
                  storage::CommitRequest& request) {
  for (const storage::PageId& page : store.pages()) {
    if (page.pool == id && page.row >= g.first_row && page.row - g.first_row < g.rows) {
      request.removed_pages.push_back(page);
    }
  }
}

}  // namespace

void Pool::drop_generations_from(const storage::PageReader& store, std::uint32_t id,
                                 std::uint32_t keep, storage::CommitRequest& request) {
  for (const Generation& g : stored_generations(id, store)) {
    if (g.index >= keep) remove_pages(store, id, g, request);
  }
  edit_record(store, record_name(id), request,
              [&](json::object& record) { record.at(kGenerations).as_array().resize(keep); });
}

void Pool::drop_generation(const storage::PageReader& store, std::uint32_t id,
                           std::uint32_t generation, storage::CommitRequest& request) {
  Generation g = stored_generations(id, store).at(generation);
  remove_pages(store, id, g, request);
  g.state = GenerationState::unlearned;
  edit_record(store, record_name(id), request, [&](json::object& record) {
    record.at(kGenerations).as_array().at(generation) = to_json(g);
  });
}

std::vector<Generation> Pool::stored_generations(std::uint32_t id,
                                                 const storage::PageReader& store) {
  return read_pool_record(id, store).generations;
}

std::vector<std::uint32_t> Pool::stored_pools(const storage::PageReader& store) {
  std::vector<std::uint32_t> ids;
  for (const std::string& name : store.dense_names()) {
    if (!name.starts_with(kRecords)) continue;
    const char* const end = name.data() + name.size();
    std::uint32_t id = 0;
    const auto read = std::from_chars(name.data() + kRecords.size(), end, id);
    if (read.ec != std::errc() || read.ptr != end) {
      throw DataError("the store's record '" + name + "' is of no pool");
    }
    ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::shared_ptr<Pool> Pool::load(std::uint32_t id, const storage::PageReader& store,
                                 std::int64_t budget_bytes) {
  return load(id, std::make_shared<PageMemory>(&store, budget_bytes), store.pages(), Memory::own);
}

std::shared_ptr<Pool> Pool::load(std::uint32_t id, std::shared_ptr<PageMemory> memory) {
  std::vector<storage::PageId> listed;
  if (memory->store() != nullptr) listed = memory->store()->pages();
  return load(id, std::move(memory), listed);
}

std::shared_ptr<Pool> Pool::load(std::uint32_t id, std::shared_ptr<PageMemory> memory,
                                 std::span<const storage::PageId> listed) {
  return load(id, std::move(memory), listed, Memory::shared);
}

std::shared_ptr<Pool> Pool::load(std::uint32_t id, std::shared_ptr<PageMemory> memory,
                                 std::span<const storage::PageId> listed, Memory whose) {
  if (memory->store() == nullptr) throw Error("a memory without a store has no pool to load");
  PoolRecord record = read_pool_record(id, *memory->store());
  const std::shared_ptr<Pool> pool(
      new Pool(id, record.options, std::move(memory), std::move(record.name), whose));
  pool->generations_ = std::move(record.generations);
  for (const Generation& generation : pool->generations_) pool->pager_->add_generation(generation);
  pool->pager_->take_stored(listed);
  return pool;
}

void Pool::require_new() const {
  const storage::PageReader* const store = memory_->store();
  if (store == nullptr) return;
  require_no_record(*store, record_name(id_), "a pool " + std::to_string(id_));
}

std::string Pool::record() const {
  json::array generations;
  for (const Generation& g : generations_) generations.push_back(to_json(g));
  json::object record{{"options", perennial::to_json(options_)},
                      {kGenerations, std::move(generations)}};
  if (name_ != kDefaultName) record[kName] = name_;
  return record_text(record);
}

void Pool::add_to_commit(storage::CommitRequest& request) {
  if (request.dense.contains(record_name(id_))) {
    throw Error("the commit has a pool " + std::to_string(id_) + " already");
  }
  if (whose_ == Memory::own) {
    memory_->add_to_commit(request);
  } else if (!memory_->commit_in_flight()) {
    throw Error("pool " + std::to_string(id_) + " ('" + name_ +
                "') shares its memory with others: PageMemory::add_to_commit() adds their pages "
                "first");
  }
  request.dense[record_name(id_)] = bytes_from(record());
}

void Pool::committed() {
  in_store_ = true;
  if (whose_ == Memory::own) memory_->committed();
}

void Pool::commit_failed() {
  if (whose_ == Memory::own) memory_->commit_failed();
}

}  // namespace perennial
