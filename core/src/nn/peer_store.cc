// SPDX-License-Identifier: Apache-2.0
// The PEER module: what it commits, and how it comes back.
#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/value_to.hpp>
#include <span>

#include "nn/record_names.h"
#include "nn/router.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/peer.h"
#include "record.h"

namespace perennial {

namespace json = boost::json;

namespace {

constexpr const char* kFirstDraw = "first_draw";
constexpr const char* kPool = "pool";  // absent where a layer of the default name reads pool 0

constexpr const char* kRouters = "routers";
constexpr const char* kDraws = "dropout_draws";
constexpr std::string_view kNamed = "layer/";

// Gives an empty router the rows and columns that its record says, for these generations.
void restore_keys(Router& router, const json::value& record,
                  std::span<const Generation> generations) {
  const json::array& rows = record.at("rows").as_array();
  if (rows.size() != generations.size()) throw Error("a router and its generations disagree");
  std::uint32_t widest = 0;
  for (const Generation& generation : generations) widest = std::max(widest, generation.cols);
  std::uint64_t cols = 0;
  for (const json::value& width : record.at("cols").as_array()) {
    const auto added = json::value_to<std::uint32_t>(width);
    cols += added;
    if (added == 0 || cols > widest) throw Error("a router has other columns than its pool");
    router.add_columns(static_cast<std::uint32_t>(cols));
  }
  if (cols != widest) throw Error("a router has other columns than its pool");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Generation& generation = generations[i];
    const auto visible_cols = json::value_to<std::uint32_t>(rows[i].at("cols"));
    if (json::value_to<std::uint32_t>(rows[i].at("generation")) != generation.index ||
        visible_cols == 0 || visible_cols > generation.cols) {
      throw Error("a router's rows and their generation disagree");
    }
    router.add_rows(generation, rows[i].at("visible").as_bool());
    router.row_blocks.back().cols = visible_cols;
    if (generation.state != GenerationState::open) router.freeze_rows();
  }
}

}  // namespace

std::string PeerImpl::record() const {
  json::array routers;
  for (const auto& router : routers_) {
    if (router == nullptr) {
      routers.push_back(nullptr);
      continue;
    }
    json::array rows, cols;
    for (const Router::RowBlock& block : router->row_blocks) {
      rows.push_back(json::object{
          {"generation", block.generation}, {"cols", block.cols}, {"visible", block.visible}});
    }
    for (const torch::Tensor& keys : router->col_blocks) cols.push_back(keys.size(1));
    json::object entry{
        {"rows", std::move(rows)}, {"cols", std::move(cols)}, {"folded", router->folded()}};
    if (options_.dropout > 0) entry[kFirstDraw] = router->first_draw;
    routers.push_back(std::move(entry));
  }
  json::object record{{"options", to_json(options_)}, {kRouters, std::move(routers)}};
  if (options_.dropout > 0) record[kDraws] = dropout_draws_;
  if (name_ != kDefaultName || pool_->id() != 0) record[kPool] = pool_->id();
  return record_text(record);
}

void PeerImpl::add_to_commit(storage::CommitRequest& request) {
  require_alone("commit");
  require_absent(request);
  pool_->add_to_commit(request);  // first: it refuses a second commit beside one in flight
  offer_layer(request);
}

void PeerImpl::committed() {
  entries_.committed();
  pool_->committed();
}

void PeerImpl::commit_failed() {
  entries_.commit_failed();
  pool_->commit_failed();
}

void PeerImpl::require_absent(const storage::CommitRequest& request) const {
  if (!request.dense.contains(layer_entry(name_))) return;
  throw Error("the commit has a layer '" + name_ +
              "' already; layers that are kept together need names of their own: ExpertLayers "
              "gives them");
}

void PeerImpl::offer_layer(storage::CommitRequest& request) {
  const std::string entry = layer_entry(name_);
  DenseEntries::Offer offer = entries_.offer(request);
  for (const auto& router : routers_) {
    if (router == nullptr) continue;
    for (const auto& [name, tensor] : router->tensors()) offer.tensor(entry + "/" + name, tensor);
  }
  offer.bytes(entry, bytes_from(record()));
}

std::vector<std::string> PeerImpl::stored_layers(const storage::PageReader& store) {
  std::vector<std::string> names;
  for (const std::string& entry : store.dense_names()) {
    if (entry == kDefaultName) names.push_back(entry);
    if (!entry.starts_with(kNamed)) continue;
    const std::string name = entry.substr(kNamed.size());
    if (name.find('/') == std::string::npos) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::uint32_t PeerImpl::stored_pool(const storage::PageReader& store, const std::string& name) {
  const std::string entry = layer_entry(name);
  const json::object record = read_record(store, entry);
  const json::value* pool = record.if_contains(kPool);
  if (pool == nullptr) return 0;
  return from_record(entry, [&] { return json::value_to<std::uint32_t>(*pool); });
}

std::shared_ptr<PeerImpl> PeerImpl::load(const storage::PageReader& store,
                                         std::int64_t budget_bytes) {
  const std::string name(kDefaultName);
  return load(store, name, Pool::load(stored_pool(store, name), store, budget_bytes));
}

std::shared_ptr<PeerImpl> PeerImpl::load(const storage::PageReader& store, const std::string& name,
                                         std::shared_ptr<Pool> pool) {
  const torch::NoGradGuard no_grad;
  const std::string entry = layer_entry(name);
  const json::object record = read_record(store, entry);
  const auto peer = from_record(entry, [&] {
    const auto options = from_json<PeerOptions>(record.at("options").as_object());
    std::shared_ptr<PeerImpl> layer(new PeerImpl(options, std::move(pool), name, Loading()));
    if (options.dropout > 0) {
      layer->dropout_draws_ = json::value_to<std::uint64_t>(record.at(kDraws));
    }
    return layer;
  });
  peer->require_budget();
  const std::vector<Generation>& generations = peer->pool_->generations();
  const bool shared = peer->options_.routing == Routing::shared;
  from_record(entry, [&] {
    const json::array& records = record.at(kRouters).as_array();
    if (records.size() !=
        (shared ? std::min<std::size_t>(generations.size(), 1) : generations.size())) {
      throw Error("it has " + std::to_string(records.size()) + " routers for " +
                  std::to_string(generations.size()) + " generations");
    }
    for (std::size_t i = 0; i < records.size(); ++i) {
      if (!shared && generations[i].state == GenerationState::unlearned) {
        peer->routers_.push_back(nullptr);
        continue;
      }
      peer->add_router(peer->new_router(static_cast<std::uint32_t>(i)));
      Router& router = *peer->routers_.back();
      // Absent from the records of older versions.
      const json::value* first = records[i].as_object().if_contains(kFirstDraw);
      router.first_draw = first == nullptr ? 0 : json::value_to<std::uint64_t>(*first);
      const auto routed = shared ? std::span(generations) : std::span(generations).subspan(i, 1);
      restore_keys(router, records[i], routed);
      const bool frozen = !shared && routed.back().state == GenerationState::frozen;
      if (frozen) router.fold_and_freeze();
      if (router.folded() != records[i].at("folded").as_bool()) {
        throw Error("a router's norm and its generation disagree");
      }
    }
  });
  for (const auto& router : peer->routers_) {
    if (router == nullptr) continue;
    for (auto& [tensor_name, tensor] : router->tensors()) {
      const std::string of_tensor = entry + "/" + tensor_name;
      tensor.copy_(tensor_like(store, of_tensor, tensor, "router"));
      peer->entries_.stored(of_tensor, tensor);
    }
  }
  peer->entries_.stored(entry);
  return peer;
}

namespace {

void require_isolated_record(const json::object& record, const std::string& entry) {
  const bool isolated = from_record(entry, [&] {
    return record.at("options").at("routing").as_string() == enum_name(Routing::isolated);
  });
  if (isolated) return;
  throw Error(
      "with shared routing one query network and one set of column keys learnt from every "
      "generation: none can be unlearned by itself");
}

}  // namespace

void PeerImpl::drop_generations_from(const storage::PageReader& store, const std::string& name,
                                     std::uint32_t keep, storage::CommitRequest& request) {
  const std::string entry = layer_entry(name);
  json::object record = read_record(store, entry);
  require_isolated_record(record, entry);
  bool draws_known = true;
  const std::size_t routers = from_record(entry, [&] {
    json::array& routers_of = record.at(kRouters).as_array();
    const std::size_t before = routers_of.size();
    if (json::value* draws = record.if_contains(kDraws); draws != nullptr && keep < before) {
      const json::value* first = routers_of.at(keep).as_object().if_contains(kFirstDraw);
      draws_known = first != nullptr;
      if (draws_known) *draws = *first;
    }
    routers_of.resize(keep);
    return before;
  });
  if (!draws_known) {
    throw DataError(
        "the store was made by a version that did not note where a generation's dropout starts");
  }
  request.dense[entry] = bytes_from(record_text(record));
  for (std::size_t g = keep; g < routers; ++g) {
    remove_entries(store, entry + "/" + Router::prefix(static_cast<std::uint32_t>(g)), request);
  }
}

void PeerImpl::drop_generation(const storage::PageReader& store, const std::string& name,
                               std::uint32_t generation, storage::CommitRequest& request) {
  const std::string entry = layer_entry(name);
  json::object record = read_record(store, entry);
  require_isolated_record(record, entry);
  from_record(entry, [&] { record.at(kRouters).as_array().at(generation) = nullptr; });
  request.dense[entry] = bytes_from(record_text(record));
  remove_entries(store, entry + "/" + Router::prefix(generation), request);
}

}  // namespace perennial
