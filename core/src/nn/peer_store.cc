// SPDX-License-Identifier: Apache-2.0
// The PEER module: what it commits, and how it comes back.
#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value_to.hpp>
#include <span>

#include "nn/record_names.h"
#include "nn/router.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/peer.h"

namespace perennial {

namespace json = boost::json;

namespace {

constexpr const char* kFirstDraw = "first_draw";

DataError malformed(const std::string& why) {
  return DataError("the store's record of the PEER layer is malformed: " + why);
}

// Gives an empty router the rows and columns that its record says, for these generations.
void restore_keys(Router& router, const json::value& record,
                  std::span<const Generation> generations) {
  const json::array& rows = record.at("rows").as_array();
  if (rows.size() != generations.size()) throw malformed("a router and its generations disagree");
  std::uint32_t widest = 0;
  for (const Generation& generation : generations) widest = std::max(widest, generation.cols);
  std::uint64_t cols = 0;
  for (const json::value& width : record.at("cols").as_array()) {
    const auto added = json::value_to<std::uint32_t>(width);
    cols += added;
    if (added == 0 || cols > widest) throw malformed("a router has other columns than its pool");
    router.add_columns(static_cast<std::uint32_t>(cols));
  }
  if (cols != widest) throw malformed("a router has other columns than its pool");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Generation& generation = generations[i];
    const auto visible_cols = json::value_to<std::uint32_t>(rows[i].at("cols"));
    if (json::value_to<std::uint32_t>(rows[i].at("generation")) != generation.index ||
        visible_cols == 0 || visible_cols > generation.cols) {
      throw malformed("a router's rows and their generation disagree");
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
  json::object record{{"options", to_json(options_)}, {"routers", std::move(routers)}};
  if (options_.dropout > 0) record["dropout_draws"] = dropout_draws_;
  return record_text(record);
}

void PeerImpl::add_to_commit(storage::CommitRequest& request) {
  for (const auto& router : routers_) {
    if (router == nullptr) continue;
    router->offered_frozen = options_.routing == Routing::isolated &&
                             (router != routers_.back() || !pool_->open_generation());
    if (router->stored_frozen) continue;
    for (const auto& [name, tensor] : router->tensors()) {
      request.dense["peer/" + name] = bytes_from(tensor);
    }
  }
  request.dense[kPeerRecord] = bytes_from(record());
  pool_->add_to_commit(request);
}

void PeerImpl::committed() {
  for (const auto& router : routers_) {
    if (router == nullptr) continue;
    // Frozen for good: its tensors need not be offered again.
    router->stored_frozen = router->stored_frozen || router->offered_frozen;
  }
  pool_->committed();
}

void PeerImpl::commit_failed() { pool_->commit_failed(); }

std::shared_ptr<PeerImpl> PeerImpl::load(const storage::PageReader& store,
                                         std::int64_t budget_bytes) {
  const torch::NoGradGuard no_grad;
  const std::string text = text_from(value_or_throw(store.read_dense(kPeerRecord)));
  PeerOptions options;
  json::array records;
  std::uint64_t dropout_draws = 0;
  try {
    const json::object record = json::parse(text).as_object();
    options = from_json<PeerOptions>(record.at("options").as_object());
    options.validate();
    records = record.at("routers").as_array();
    if (options.dropout > 0) {
      dropout_draws = json::value_to<std::uint64_t>(record.at("dropout_draws"));
    }
  } catch (const std::exception& error) {
    throw malformed(error.what());
  }
  auto peer = std::make_shared<PeerImpl>(options, &store, budget_bytes);
  const json::object wanted = to_json(peer->pool_->options());
  peer->pool_ = Pool::load(peer->pool_->id(), store, budget_bytes);
  peer->dropout_draws_ = dropout_draws;
  peer->require_budget();
  const std::vector<Generation>& generations = peer->pool_->generations();
  const bool shared = options.routing == Routing::shared;
  if (to_json(peer->pool_->options()) != wanted) {
    throw malformed("its pool has other options");
  }
  if (records.size() !=
      (shared ? std::min<std::size_t>(generations.size(), 1) : generations.size())) {
    throw malformed("it has " + std::to_string(records.size()) + " routers for " +
                    std::to_string(generations.size()) + " generations");
  }
  try {
    for (std::size_t i = 0; i < records.size(); ++i) {
      if (!shared && generations[i].state == GenerationState::unlearned) {
        peer->routers_.push_back(nullptr);
        continue;
      }
      peer->add_router();
      Router& router = *peer->routers_.back();
      // Absent from the records of older versions.
      const json::value* first = records[i].as_object().if_contains(kFirstDraw);
      router.first_draw = first == nullptr ? 0 : json::value_to<std::uint64_t>(*first);
      const auto routed = shared ? std::span(generations) : std::span(generations).subspan(i, 1);
      restore_keys(router, records[i], routed);
      const bool frozen = !shared && routed.back().state == GenerationState::frozen;
      if (frozen) router.fold_and_freeze();
      if (router.folded() != records[i].at("folded").as_bool()) {
        throw malformed("a router's norm and its generation disagree");
      }
      for (auto& [name, tensor] : router.tensors()) {
        tensor.copy_(tensor_like(store, "peer/" + name, tensor, "router"));
      }
      router.stored_frozen = frozen;
    }
    return peer;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw malformed(error.what());
  }
}

}  // namespace perennial
