// SPDX-License-Identifier: Apache-2.0
// Edits the records of layer, pool and gate, and names the entries and pages that go.
#include "perennial/core/unlearn.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value_to.hpp>
#include <functional>
#include <string>
#include <vector>

#include "nn/record_names.h"
#include "nn/router.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/pool.h"

namespace perennial {

namespace {

namespace json = boost::json;

constexpr std::uint32_t kPool = 0;
constexpr const char* kPoolRecord = "pool/0";

json::object read_record(const storage::PageReader& store, const std::string& name) {
  const std::string text = text_from(value_or_throw(store.read_dense(name)));
  boost::system::error_code error;
  json::value value = json::parse(text, error);
  if (error || !value.is_object())
    throw DataError("the store's record '" + name + "' is malformed");
  return std::move(value.as_object());
}

bool has_entry(const storage::PageReader& store, const std::string& name) {
  const auto names = store.dense_names();
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Applies `edit` to a record; what its fields should be and are not is an error of the data.
void edit_record(const storage::PageReader& store, const std::string& name,
                 storage::CommitRequest& request, const std::function<void(json::object&)>& edit) {
  json::object record = read_record(store, name);
  try {
    edit(record);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw DataError("the store's record '" + name + "' is malformed: " + error.what());
  }
  request.dense[name] = bytes_from(record_text(record));
}

std::vector<Generation> generations_in(const storage::PageReader& store) {
  const json::object layer = read_record(store, kPeerRecord);
  if (layer.at("options").at("routing").as_string() != enum_name(Routing::isolated)) {
    throw Error(
        "with shared routing one query network and one set of column keys learnt from every "
        "generation: none can be unlearned by itself");
  }
  return Pool::stored_generations(kPool, store);
}

// Pages and dense entries of the generations that `gone` is true for.
void remove_content(const storage::PageReader& store, const std::vector<Generation>& generations,
                    const std::function<bool(const Generation&)>& gone,
                    storage::CommitRequest& request) {
  for (const storage::PageId& id : store.pages()) {
    if (id.pool != kPool) continue;
    const bool goes = std::any_of(generations.begin(), generations.end(), [&](const auto& g) {
      return gone(g) && id.row >= g.first_row && id.row - g.first_row < g.rows;
    });
    if (goes) request.removed_pages.push_back(id);
  }
  const std::vector<std::string> names = store.dense_names();
  for (const Generation& g : generations) {
    if (!gone(g)) continue;
    const std::string router = "peer/" + Router::prefix(g.index);
    const std::string gate = gate_entry(g.index, "");
    for (const std::string& name : names) {
      if (name.starts_with(router) || name.starts_with(gate)) request.removed_dense.push_back(name);
    }
  }
}

}  // namespace

void drop_generations_from(const storage::PageReader& store, std::uint32_t keep,
                           storage::CommitRequest& request) {
  const std::vector<Generation> generations = generations_in(store);
  if (keep == 0 || keep >= generations.size()) {
    throw Error("of " + std::to_string(generations.size()) + " generations none can be dropped " +
                "so that " + std::to_string(keep) + " are left");
  }
  remove_content(
      store, generations, [&](const Generation& g) { return g.index >= keep; }, request);
  edit_record(store, kPoolRecord, request,
              [&](json::object& record) { record.at("generations").as_array().resize(keep); });
  edit_record(store, kPeerRecord, request, [&](json::object& record) {
    json::array& routers = record.at("routers").as_array();
    if (json::value* draws = record.if_contains("dropout_draws")) {
      const json::value* first = routers.at(keep).as_object().if_contains("first_draw");
      if (first == nullptr) {
        throw DataError(
            "the store was made by a version that did not note where a generation's dropout "
            "starts");
      }
      *draws = *first;
    }
    routers.resize(keep);
  });
  if (!has_entry(store, kGateRecord)) return;
  edit_record(store, kGateRecord, request, [&](json::object& record) {
    record.at("generations") = keep;
    if (json::value* counts = record.if_contains("counts")) counts->as_array().resize(keep);
    if (json::value* unlearned = record.if_contains("unlearned")) {
      json::array kept;
      for (const json::value& g : unlearned->as_array()) {
        if (json::value_to<std::uint32_t>(g) < keep) kept.push_back(g);
      }
      if (kept.empty()) {
        record.erase("unlearned");
      } else {
        *unlearned = std::move(kept);
      }
    }
  });
}

void drop_generation(const storage::PageReader& store, std::uint32_t generation,
                     storage::CommitRequest& request) {
  const std::vector<Generation> generations = generations_in(store);
  if (generation >= generations.size() ||
      generations[generation].state == GenerationState::unlearned) {
    throw Error("generation " + std::to_string(generation) + " does not exist or was unlearned");
  }
  remove_content(
      store, generations, [&](const Generation& g) { return g.index == generation; }, request);
  edit_record(store, kPoolRecord, request, [&](json::object& record) {
    json::object& entry = record.at("generations").at(generation).as_object();
    entry.at("digest") = "";
    entry.at("router_digest") = "";
    entry.at("frozen") = true;
    entry["unlearned"] = true;
  });
  edit_record(store, kPeerRecord, request, [&](json::object& record) {
    record.at("routers").as_array().at(generation) = nullptr;
  });
  if (!has_entry(store, kGateRecord)) return;
  edit_record(store, kGateRecord, request, [&](json::object& record) {
    if (json::value* counts = record.if_contains("counts")) {
      counts->as_array().at(generation) = std::int64_t{0};
    }
    json::array unlearned;
    if (const json::value* before = record.if_contains("unlearned")) unlearned = before->as_array();
    unlearned.emplace_back(generation);
    std::sort(unlearned.begin(), unlearned.end(), [](const json::value& a, const json::value& b) {
      return json::value_to<std::uint32_t>(a) < json::value_to<std::uint32_t>(b);
    });
    record["unlearned"] = std::move(unlearned);
  });
}

}  // namespace perennial
