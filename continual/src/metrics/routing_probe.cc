// SPDX-License-Identifier: Apache-2.0
// Retrieves, compares, counts.
#include "metrics/routing_probe.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value_to.hpp>
#include <cmath>
#include <fstream>
#include <optional>
#include <set>
#include <unordered_map>

#include "perennial/continual/routing_metrics.h"
#include "perennial/kernels/expert_id.h"
#include "perennial/storage/digest.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

// The generation whose router takes the inputs of an experience; empty where it is gone.
std::optional<std::uint32_t> router_of(Model& model, std::int64_t experience) {
  const ExpertLayers& experts = *model.experts();
  const auto newest = static_cast<std::int64_t>(experts.generations()) - 1;
  const auto own = static_cast<std::uint32_t>(std::min(model.generation_of(experience), newest));
  if (experts.state(own) == GenerationState::unlearned) return std::nullopt;
  return own;
}

// One digest an input, of the set of experts that each of its heads retrieved: ids (B, H, K).
std::vector<std::string> set_digests(const at::Tensor& ids) {
  const std::int64_t heads = ids.size(1), k = ids.size(2);
  std::vector<std::string> digests;
  std::vector<std::int64_t> set(static_cast<std::size_t>(k));
  const std::int64_t* id = ids.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < ids.size(0); ++i) {
    storage::Hasher hasher;
    for (std::int64_t h = 0; h < heads; ++h, id += k) {
      std::copy_n(id, k, set.begin());
      std::sort(set.begin(), set.end());
      for (const std::int64_t expert : set) hasher.update(static_cast<std::uint64_t>(expert));
    }
    digests.push_back(hasher.finish().hex());
  }
  return digests;
}

// routing_drift, of sets that only their digests are left of.
double drift_of(const std::vector<std::string>& then, const std::vector<std::string>& now) {
  std::size_t changed = 0;
  for (std::size_t i = 0; i < now.size(); ++i) changed += then[i] == now[i] ? 0 : 1;
  return static_cast<double>(changed) / static_cast<double>(now.size());
}

bool answers_alone(Model& model) {
  return model.only_layer()->options().routing == Routing::isolated && model.learns_by_gradient();
}

}  // namespace

RoutingProbe::RoutingProbe(const Stream& stream, std::int64_t inputs)
    : stream_(stream), inputs_(inputs) {}

void RoutingProbe::load(const std::filesystem::path& events) {
  const char* scores = score_names(stream_.task().kind()).values;
  std::ifstream in(events, std::ios::binary);
  for (std::string line; std::getline(in, line);) {
    boost::system::error_code error;
    const json::value value = json::parse(line, error);
    if (error || !value.is_object()) continue;
    const json::object& event = value.get_object();
    const json::value* name = event.if_contains("event");
    if (name == nullptr || !name->is_string()) continue;
    try {
      if (name->get_string() == "experience") {
        parameters_ = json::value_to<std::uint64_t>(event.at("parameters"));
      } else if (name->get_string() == "routing" && event.contains("sets")) {
        const auto experience = json::value_to<std::int64_t>(event.at("row")) - 1;
        then_[experience] = {json::value_to<std::vector<std::string>>(event.at("sets")),
                             json::value_to<double>(event.at(scores))};
      }
    } catch (const std::exception&) {
      continue;
    }
  }
}

Batch RoutingProbe::inputs_of(std::int64_t experience) const {
  return stream_.test_batch(experience, 0, std::min(inputs_, stream_.test_size(experience)));
}

void RoutingProbe::add_to(json::object& experience, Model& model, std::int64_t learnt) {
  const auto parameters = json::value_to<std::uint64_t>(experience.at("parameters"));
  experience["parameters_added"] =
      static_cast<std::int64_t>(parameters) - static_cast<std::int64_t>(parameters_);
  parameters_ = parameters;
  if (model.experts() == nullptr) return;
  const PagerCounters counters = model.experts()->counters();
  const std::uint64_t uses =
      counters.hits + counters.initialised + counters.read + counters.unspilled;
  if (uses > uses_) {
    experience["hit_rate"] =
        static_cast<double>(counters.hits - hits_) / static_cast<double>(uses - uses_);
  }
  hits_ = counters.hits;
  uses_ = uses;
  if (!on(model)) return;
  const std::optional<std::uint32_t> own = router_of(model, learnt - 1);
  if (!own) return;
  const at::NoGradGuard no_grad;
  PeerImpl& layer = *model.only_layer();
  const Generation generation = layer.pool().generation(*own);
  PeerImpl::Retrieval found =
      layer.retrieve(model.layer_inputs(layer.name(), inputs_of(learnt - 1).x), *own);
  found.ids = found.ids.cpu();
  found.weights = found.weights.cpu();
  std::unordered_map<std::int64_t, double> weight;
  std::set<std::uint32_t> rows;
  double all = 0;
  const std::int64_t* id = found.ids.const_data_ptr<std::int64_t>();
  const float* share = found.weights.const_data_ptr<float>();
  for (std::int64_t i = 0; i < found.ids.numel(); ++i) {
    weight[id[i]] += std::abs(share[i]);
    all += std::abs(share[i]);
    const std::uint32_t row = kernels::row_of(id[i]);
    if (row >= generation.first_row && row - generation.first_row < generation.rows)
      rows.insert(row);
  }
  // Shared routing retrieves from all generations; the whole pool counts then.
  const bool isolated = layer.options().routing == Routing::isolated;
  const double experts = isolated ? static_cast<double>(generation.rows) * generation.cols
                                  : static_cast<double>(layer.pool().experts());
  double entropy = 0;
  for (const auto& [expert, sum] : weight) {
    if (sum > 0) entropy += sum / all * std::log(sum / all);
  }
  experience["usage"] = static_cast<double>(weight.size()) / experts;
  experience["unevenness"] = std::log(experts) + entropy;
  experience["dead_rows"] =
      1 - static_cast<double>(rows.size()) / static_cast<double>(generation.rows);
}

json::object RoutingProbe::event(Model& model, std::int64_t learnt) {
  if (!on(model)) return {};
  const at::NoGradGuard no_grad;
  json::array drift, leak, forgetting, own_sets;
  double own_score = 0;
  bool told = learnt == 1;  // whether weight forgetting says something of an older experience
  PeerImpl& layer = *model.only_layer();
  const std::vector<Generation>& generations = layer.pool().generations();
  // Joint training and the like learn all test sets at once.
  for (std::int64_t j = 0; j < std::min(learnt, stream_.test_sets()); ++j) {
    const std::optional<std::uint32_t> generation = router_of(model, j);
    const auto before = then_.find(j);
    if (!generation || (j + 1 < learnt && before == then_.end())) {
      drift.push_back(nullptr);  // unlearned, or learnt without a record
      leak.push_back(nullptr);
      forgetting.push_back(nullptr);
      continue;
    }
    const Batch batch = inputs_of(j);
    const at::Tensor ids =
        layer.retrieve(model.layer_inputs(layer.name(), batch.x), *generation).ids.cpu();
    const std::vector<std::string> sets = set_digests(ids);
    double score = 0;
    if (answers_alone(model)) {
      const std::unique_ptr<Scorer> scorer = stream_.task().scorer();
      scorer->add(model.predict(batch.x, *generation).answers, batch);
      score = scorer->score();
    }
    const bool own = j + 1 == learnt;
    if (own) {
      then_[j] = {sets, score};
      own_sets = json::array(sets.begin(), sets.end());
      own_score = score;
    }
    const Then& then = then_.at(j);
    drift.push_back(drift_of(then.sets, sets));
    const bool newer = *generation + 1 < generations.size();
    leak.push_back(newer ? routing_leak(ids, generations[*generation + 1].first_row) : 0.0);
    // A generation that trains on has another router than it had then.
    if (own || generations[*generation].state == GenerationState::frozen) {
      forgetting.push_back(weight_forgetting({then.score}, {score}));
      told = told || !own;
    } else {
      forgetting.push_back(nullptr);
    }
  }
  json::object fields{{"row", learnt},
                      {"inputs", inputs_},
                      {"drift", std::move(drift)},
                      {"leak", std::move(leak)},
                      {"sets", std::move(own_sets)},
                      {score_names(stream_.task().kind()).values, own_score}};
  if (answers_alone(model) && told) fields["weight_forgetting"] = std::move(forgetting);
  return fields;
}

}  // namespace perennial::continual
