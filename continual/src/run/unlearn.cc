// SPDX-License-Identifier: Apache-2.0
// Going back to before an experience, or taking one generation out.
#include "perennial/continual/unlearn.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <map>
#include <memory>
#include <utility>

#include "model/owners.h"
#include "perennial/continual/model.h"
#include "perennial/continual/strategy.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/unlearn.h"
#include "run/boundaries.h"
#include "run/run_note.h"
#include "run/run_state.h"
#include "strategies/grow_freeze.h"
#include "strategies/strategy_state.h"

namespace perennial::continual {

namespace json = boost::json;

namespace {

// The generations of each pool of a store, which all have equally many.
std::vector<std::vector<Generation>> generations_of(const storage::PageReader& store) {
  std::vector<std::vector<Generation>> all;
  for (const std::uint32_t pool : Pool::stored_pools(store)) {
    all.push_back(Pool::stored_generations(pool, store));
  }
  return all;
}

// What makes unlearning exact: a generation whose experts and router nothing else shares.
void require_generations(const RunConfig& config) {
  const auto refuse = [](const std::string& why) {
    throw InvalidOptions("nothing can be unlearned exactly: " + why);
  };
  if (config.model.model != ModelKind::peer)
    refuse("the model is an mlp, all of whose weights learnt everything");
  if (config.model.head == HeadKind::analytic) {
    refuse("an analytic head adds all experiences up in one sum");
  }
  if (!config.train.strategy.has("grow_freeze")) {
    refuse("strategy " + config.train.strategy.text() + " trains all experts on everything");
  }
  if (config.model.peer.routing != Routing::isolated) {
    refuse("with shared routing the query network and column keys learnt from every experience");
  }
  if (config.train.strategy_options[kGrowth] == GrowthKind::drift) {
    refuse("with growth drift a generation is no experience, and what it learnt from has no name");
  }
  const GateKind gate = config.gate();
  if (gate != GateKind::oracle && gate != GateKind::none && gate != GateKind::analytic) {
    refuse("gate " + std::string(enum_name(gate)) + " has no sums to take a generation out of");
  }
}

// Why newer generations are no longer independent of older ones; empty when they are.
std::string reader(const RunConfig& config) {
  for (const StrategyDeclaration* part : config.train.strategy.parts()) {
    if (part->name != "grow_freeze") return "strategy " + std::string(part->name);
  }
  return {};
}

class Unlearning {
 public:
  Unlearning(storage::PageStore& store, const UnlearnOptions& options)
      : store_(store), options_(options), state_(value_or_throw(load_run_state(store))) {
    require_generations(state_.config);
    pools_ = generations_of(store);
    boundaries_ = Boundaries::load(store);
    note_ = note_with(store, "events_bytes");
  }

  Unlearned run() {
    const std::uint32_t target = find_target();
    const auto newest = static_cast<std::uint32_t>(generations().size()) - 1;
    const std::string read_by = target == newest ? "" : reader(state_.config);
    if (!read_by.empty() && !options_.cascade) {
      throw InvalidOptions("generation " + std::to_string(target) +
                           " was read by those after it, up to " + std::to_string(newest) +
                           ": they learnt with " + read_by +
                           "; unlearn them too with --cascade, or newest first");
    }
    if (target == newest || !read_by.empty()) {
      go_back(target);
    } else {
      result_.generations = {target};
      drop_generation(store_, target, request_);
      state_.unlearned_after.emplace_back(target, state_.position.experience);
      RunEntries run(state_);
      run.loaded(store_);
      run.add_to_commit(request_);
    }
    commit();
    find_holders();
    return std::move(result_);
  }

 private:
  // The model's, as the first pool has them.
  const std::vector<Generation>& generations() const { return pools_.front(); }

  std::uint32_t find_target() const {
    const auto count = static_cast<std::uint32_t>(generations().size());
    if (!options_.generation) return count - 1;
    const std::uint32_t wanted = *options_.generation;
    if (wanted >= count) {
      throw InvalidOptions("generation is " + std::to_string(wanted) + "; the store has 0 to " +
                           std::to_string(count - 1));
    }
    if (generations()[wanted].state == GenerationState::unlearned) {
      throw InvalidOptions("generation " + std::to_string(wanted) + " was unlearned before");
    }
    return wanted;
  }

  // To the state before the experience that opened generation `keep`; places that only unlearned
  // generations hold are given back.
  void go_back(std::uint32_t keep) {
    while (keep > 0 && generations()[keep - 1].state == GenerationState::unlearned) --keep;
    for (std::size_t g = keep; g < generations().size(); ++g) {
      if (generations()[g].state == GenerationState::unlearned) continue;
      result_.generations.push_back(static_cast<std::uint32_t>(g));
    }
    const std::vector<std::int64_t> owners = read_owners(store_);
    const std::int64_t begun = state_.position.experience + (state_.position.at_start() ? 0 : 1);
    std::int64_t experience = 0;
    while (experience < begun && owner_of(owners, experience) < std::int64_t{keep}) ++experience;
    if (keep > 0 && experience == begun) {  // grown by hand, it learnt nothing of the run's
      drop_generations_from(store_, keep, request_);
      return;
    }
    rewind(experience);
    if (keep > 0) {
      drop_generations_from(store_, keep, request_);
    } else {
      start_anew();
    }
    set_owners(owners, experience);
    drop_optimizer();
    std::erase_if(state_.unlearned_after,
                  [keep](const auto& entry) { return entry.first >= keep; });
    for (auto& [generation, learnt] : state_.unlearned_after) learnt = std::min(learnt, experience);
    RunEntries(state_).add_to_commit(request_);
    take_memories(experience);
    result_.experience = experience;
  }

  void rewind(std::int64_t experience) {
    if (state_.config.stream.stream == StreamKind::single && state_.matrix.experiences() > 1) {
      throw InvalidOptions(
          "the store went on with further data, which brought labels and test sets of their own; "
          "go "
          "back with restore to the commit before them");
    }
    const Boundary* boundary = boundaries_.find(experience);
    if (boundary == nullptr) {
      throw InvalidOptions(
          "the store does not say where experience " + std::to_string(experience + 1) +
          " began, as its run was started by an older version; go back with restore, if the commit "
          "before it is still there");
    }
    state_.position = {experience, 0, 0};
    state_.steps = boundary->steps;
    state_.gate_accuracy = boundary->gate_accuracy;
    state_.errors = boundary->errors;
    state_.finished = false;
    const ScoreMatrix before = state_.matrix;
    state_.matrix = ScoreMatrix(before.experiences());
    for (std::int64_t row = 0; row <= experience; ++row) {
      if (!before.has_row(row)) continue;
      std::vector<double> values;
      for (std::int64_t j = 0; j < before.experiences(); ++j) values.push_back(before.at(row, j));
      state_.matrix.set_row(row, std::move(values));
    }
    std::erase_if(state_.anytime.points,
                  [&](const AnytimePoint& point) { return point.experience > experience; });
    state_.anytime.options = state_.config.train.anytime;
    state_.anytime.test_sets = before.experiences();
    set_record_mark(note_, boundary->record);
    note_["experience_seconds"] = 0;
    boundaries_.cut(experience);
    boundaries_.add_to(note_);
  }

  // Nothing is left: layer and gate as a new run makes them.
  void start_anew() {
    ImageShape image;
    if (state_.config.gate() == GateKind::analytic) image = AnalyticGate::load(store_).image();
    const std::unique_ptr<Model> model = make_model(state_.config, state_.preprocessing.features,
                                                    state_.task()->outputs(), nullptr, 0, image);
    model->add_to_commit(request_);
    for (const std::string& name : store_.dense_names()) {
      const bool of_model =
          name.starts_with("peer/") || name.starts_with("layer/") || name.starts_with("gate/");
      if (of_model && !request_.dense.contains(name)) request_.removed_dense.push_back(name);
    }
    request_.removed_pages = store_.pages();
  }

  void set_owners(std::vector<std::int64_t> owners, std::int64_t experience) {
    if (owners.empty()) return;
    if (std::cmp_greater(owners.size(), experience)) {
      owners.resize(static_cast<std::size_t>(experience));
    }
    bool returned = false;
    for (std::size_t e = 0; e < owners.size(); ++e) {
      returned = returned || std::cmp_not_equal(owners[e], e);
    }
    if (returned) {
      request_.dense[kOwners] = bytes_from(at::tensor(owners, at::kLong));
    } else {
      request_.removed_dense.emplace_back(kOwners);
    }
  }

  // Between experiences nothing trains, so nothing has moments.
  void drop_optimizer() {
    for (const std::string& name : store_.dense_names()) {
      if (name.starts_with("optimizer/")) request_.removed_dense.push_back(name);
    }
  }

  // Strategies' memories were changed by what came later; they are taken from the commit of then.
  void take_memories(std::int64_t experience) {
    const auto of_strategy = [](const std::string& name) { return name.starts_with("strategy/"); };
    const auto names = store_.dense_names();
    if (std::none_of(names.begin(), names.end(), of_strategy)) return;
    for (const std::string& name : names) {
      if (of_strategy(name)) request_.removed_dense.push_back(name);
    }
    std::map<std::string, storage::DensePayload> memories;
    if (experience == 0) {
      storage::CommitRequest fresh;
      StrategyState(make_strategy(state_.config, state_.shape())).add_to_commit(fresh);
      memories = std::move(fresh.dense);
    } else {
      const std::unique_ptr<storage::PageReader> then = commit_of(experience);
      if (then == nullptr) {
        throw InvalidOptions(
            "strategy " + state_.config.train.strategy.text() +
            " keeps a memory, and the commit with it as it was before experience " +
            std::to_string(experience + 1) + " is no longer in the store's history");
      }
      for (const std::string& name : then->dense_names()) {
        if (of_strategy(name)) memories[name] = value_or_throw(then->read_dense(name));
      }
    }
    for (auto& [name, payload] : memories) {
      std::erase(request_.removed_dense, name);
      request_.dense[name] = std::move(payload);
    }
  }

  // The newest commit of exactly the state that is to be, but for memories; null where none is.
  std::unique_ptr<storage::PageReader> commit_of(std::int64_t experience) const {
    const std::vector<storage::CommitInfo> log = store_.log();
    for (auto info = log.rbegin(); info != log.rend(); ++info) {
      boost::system::error_code error;
      const json::value note = json::parse(info->note, error);
      if (error || !note.is_object()) continue;
      const json::value* at = note.get_object().if_contains("experience");
      if (at == nullptr || *at != json::value(experience)) continue;
      auto reader = store_.at(info->commit);
      if (!reader.ok()) continue;
      const bool same =
          std::all_of(request_.dense.begin(), request_.dense.end(), [&](const auto& entry) {
            if (entry.first.starts_with("strategy/")) return true;
            const auto stored = (*reader)->read_dense(entry.first);
            return stored.ok() && *stored == value_or_throw(entry.second.bytes());
          });
      if (same) return std::move(*reader);
    }
    return nullptr;
  }

  void commit() {
    std::sort(request_.removed_dense.begin(), request_.removed_dense.end());
    request_.snapshot = options_.snapshot;
    note_["action"] = "unlearn";
    note_["unlearned"] = json::array(result_.generations.begin(), result_.generations.end());
    note_["experience"] = state_.position.experience;
    note_["steps"] = state_.steps;
    note_["machine"] = machine();
    note_["generations"] = generations_left();
    note_.erase(score_names(state_.config.task()).metric);  // it was measured on the model before
    note_.erase("pager");
    request_.note = record_text(note_);
    result_.commit = value_or_throw(store_.commit(request_));
  }

  std::size_t generations_left() const {
    return static_cast<std::size_t>(
        std::count_if(generations().begin(), generations().end(), [&](const Generation& g) {
          return g.state != GenerationState::unlearned &&
                 std::find(result_.generations.begin(), result_.generations.end(), g.index) ==
                     result_.generations.end();
        }));
  }

  void find_holders() {
    for (const storage::CommitInfo& info : store_.log()) {
      if (info.commit >= result_.commit.commit) continue;
      const auto reader = store_.at(info.commit);
      if (!reader.ok()) continue;
      const std::vector<std::vector<Generation>> then = generations_of(**reader);
      const bool holds =
          std::ranges::any_of(result_.generations, [&](std::uint32_t g) { return had(then, g); });
      if (holds) result_.held_by.push_back(info);
    }
  }

  // Whether a state that had these generations holds what is unlearned of `g`.
  bool had(const std::vector<std::vector<Generation>>& then, std::uint32_t g) const {
    for (std::size_t pool = 0; pool < std::min(then.size(), pools_.size()); ++pool) {
      if (g >= then[pool].size() || then[pool][g].state == GenerationState::unlearned) continue;
      // One that was open then may have been any stage of it.
      if (then[pool][g].state == GenerationState::open ||
          pools_[pool][g].state == GenerationState::open ||
          then[pool][g].digest == pools_[pool][g].digest) {
        return true;
      }
    }
    return false;
  }

  storage::PageStore& store_;
  const UnlearnOptions& options_;
  RunState state_;
  std::vector<std::vector<Generation>> pools_;
  Boundaries boundaries_;
  json::object note_;
  storage::CommitRequest request_;
  Unlearned result_;
};

}  // namespace

Unlearned unlearn(storage::PageStore& store, const UnlearnOptions& options) {
  return Unlearning(store, options).run();
}

}  // namespace perennial::continual
