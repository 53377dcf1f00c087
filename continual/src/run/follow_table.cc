// SPDX-License-Identifier: Apache-2.0
// One experience after the other from a growing table.
#include "perennial/continual/follow_table.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "perennial/continual/further_data.h"
#include "perennial/core/error.h"
#include "run/run_state.h"

namespace perennial::continual {

namespace {

constexpr std::int64_t kDefaultRows = 1000, kFewest = 4;

using Clock = std::chrono::steady_clock;

void require_followable(const RunConfig& config) {
  config.validate();
  if (config.stream.stream != StreamKind::single) {
    throw InvalidOptions("a table is followed as stream single, not " +
                         std::string(enum_name(config.stream.stream)));
  }
  if (config.stream.limit > 0 || config.stream.test_limit > 0 ||
      config.stream.validation_share > 0) {
    throw InvalidOptions(
        "limit, test_limit and validation_share are for data of a known size; a table that is "
        "followed has follow_rows and test_share");
  }
  if (config.model.model == ModelKind::peer && config.model.head == HeadKind::trained &&
      config.model.peer.query_norm == QueryNorm::batch) {
    throw InvalidOptions(
        "query_norm batch cannot follow a table: its experiences may end in a "
        "batch of one; use query_norm layer or rms");
  }
  if (config.train.anytime.on()) {
    throw InvalidOptions("a table that is followed has no anytime curve: its length is not known");
  }
}

// Whether a test part can be split off: two rows, of one class where there are classes.
bool has_a_pair(const Dataset& rows) {
  if (!rows.targets.empty()) return rows.size() > 1;
  const at::Tensor& labels = rows.y;
  std::vector<std::int64_t> seen;
  for (std::int64_t i = 0; i < labels.numel(); ++i) {
    const auto label = labels[i].item<std::int64_t>();
    if (std::find(seen.begin(), seen.end(), label) != seen.end()) return true;
    seen.push_back(label);
  }
  return false;
}

// The state that the store's run is in; empty without a run.
std::optional<RunState> state_in(const storage::PageStore* store) {
  if (store == nullptr) return std::nullopt;
  storage::Result<RunState> loaded = load_run_state(*store);
  if (loaded.status().code() == storage::StatusCode::not_found) return std::nullopt;
  return value_or_throw(std::move(loaded));
}

class Follower {
 public:
  Follower(const RunConfig& config, const FollowOptions& options, const FollowSettings& settings)
      : config_(config), options_(options), settings_(settings), store_(settings.store) {
    config_.stream.dataset = data_location(config.stream.dataset);
  }

  std::optional<RunResult> run() {
    std::optional<RunState> state = state_in(store_);
    rows_ = options_.follow_rows;
    if (rows_ == 0) rows_ = state && state->follow ? state->follow->rows : kDefaultRows;
    if (rows_ < kFewest) {
      throw InvalidOptions("follow_rows is " + std::to_string(rows_) + "; an experience needs " +
                           std::to_string(kFewest) + " rows at least");
    }
    if (state && !state->finished) {
      if (state->config.stream.dataset != config_.stream.dataset) {
        throw InvalidOptions("the store's run has not finished learning " +
                             state->config.stream.dataset + "; go on with that first");
      }
      result_ = learn(run_stream(config_, *store_), std::nullopt);
      if (!result_->finished) return std::move(result_);
      state = state_in(store_);
    }
    FollowPosition from;
    std::vector<std::string> labels, columns;
    if (state) {
      require_further(*state);
      if (state->follow && state->follow->file == config_.stream.dataset) {
        from = state->follow->position;
      }
      labels = state->label_names;
      columns = state->preprocessing.columns;
    }
    RowFollower rows(config_.stream.dataset, config_.stream.table, from, labels, columns);
    while (!stopped()) {
      std::optional<TrainTest> data = next(rows);
      if (!data) break;
      const FollowRows follow{rows.position(), rows_};
      result_ = learn(stream_of(std::move(*data)), follow);
      if (settings_.on_experience) settings_.on_experience(*result_, rows.bad_rows());
      if (!result_->finished || rows.ended()) break;
    }
    if (!result_ && store_ != nullptr && state) {
      result_ = learn(run_stream(state->config, *store_), std::nullopt);
    }
    return std::move(result_);
  }

 private:
  bool stopped() const { return settings_.run.stop_requested && settings_.run.stop_requested(); }

  void require_further(const RunState& state) const {
    if (state.tests.empty()) further_stream(config_, *store_);  // says why
    const std::vector<std::string> differing = further_differences(state.config, config_);
    refuse_differing("a table is followed as the store's run was set up", differing,
                     "use another store for another set-up");
    const bool followed = state.follow && state.follow->file == config_.stream.dataset;
    if (!followed && state.config.stream.dataset == config_.stream.dataset) {
      throw InvalidOptions("the store has learnt " + config_.stream.dataset +
                           " as a whole; follow a file of new rows, or follow this one into a "
                           "store of its own");
    }
  }

  // The next experience's rows; empty when following ends before they are there.
  std::optional<TrainTest> next(RowFollower& rows) {
    std::vector<at::Tensor> x, y;
    std::int64_t missing = rows_;
    const auto begin = Clock::now();
    const auto idle = std::chrono::duration<double>(options_.follow_idle);
    while (missing > 0 && !rows.ended()) {
      constexpr std::chrono::milliseconds kPatience{200};
      FollowedRows some = rows.read(missing, kPatience, [this] { return stopped(); });
      if (some.y.size(0) > 0) {
        x.push_back(std::move(some.x));
        y.push_back(std::move(some.y));
        missing -= y.back().size(0);
      }
      if (missing == 0 || rows.ended()) break;
      if (stopped()) return std::nullopt;
      if (options_.follow_idle > 0 && Clock::now() - begin >= idle) return std::nullopt;
    }
    if (x.empty()) return std::nullopt;
    TrainTest data;
    data.name = config_.stream.dataset;
    data.train.table = true;
    data.train.x = at::cat(x);
    data.train.y = at::cat(y);
    data.train.targets = rows.target_names();
    if (missing > 0 && !has_a_pair(data.train)) return std::nullopt;
    data.train.label_names = rows.label_names();
    data.train.columns = rows.feature_names();
    split_test(data, config_.stream.table.test_share, config_.stream.stream_seed);
    return data;
  }

  Stream stream_of(TrainTest data) const {
    const std::optional<RunState> state = state_in(store_);
    if (!state) return {config_.stream, std::move(data)};
    return {config_.stream, std::move(data),
            LearntBefore{state->label_names, state->preprocessing, state->tests, state->targets}};
  }

  RunResult learn(Stream stream, std::optional<FollowRows> follow) {
    RunSettings settings = settings_.run;
    settings.follow = std::move(follow);
    if (store_ == nullptr) {
      // What cannot be learnt is refused before there is a store.
      const Trainer check(config_, stream, nullptr, settings);
      store_ = settings_.make_store();
    }
    return Trainer(config_, std::move(stream), store_, settings).run();
  }

  RunConfig config_;
  const FollowOptions& options_;
  const FollowSettings& settings_;
  storage::PageStore* store_;
  std::int64_t rows_ = 0;
  std::optional<RunResult> result_;
};

}  // namespace

std::optional<RunResult> follow_table(const RunConfig& config, const FollowOptions& options,
                                      const FollowSettings& settings) {
  validate_ranges(options);
  require_followable(config);
  return Follower(config, options, settings).run();
}

}  // namespace perennial::continual
