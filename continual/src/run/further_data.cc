// SPDX-License-Identifier: Apache-2.0
// Streams of runs that go on.
#include "perennial/continual/further_data.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "perennial/core/error.h"
#include "run/run_state.h"

namespace perennial::continual {

namespace {

// What was known before the run's last experience.
LearntBefore before_last(const RunState& state) {
  LearntBefore before{state.label_names, state.preprocessing, state.tests, state.targets};
  before.tests.pop_back();
  const std::size_t earlier = before.tests.size();
  const std::int64_t classes = earlier > 0 ? state.classes_after[earlier - 1] : 0;
  before.label_names.resize(static_cast<std::size_t>(classes));
  return before;
}

// Rows that the store keeps as a data set of the run.
Dataset as_dataset(Dataset rows, const RunState& state) {
  rows.table = true;
  rows.label_names = state.label_names;
  rows.columns = state.preprocessing.columns;
  rows.targets = state.targets.columns;
  return rows;
}

}  // namespace

Stream run_stream(const RunConfig& config, const storage::PageReader& store) {
  const RunState state = value_or_throw(load_run_state(store));
  const bool followed = state.follow.has_value() && state.follow->current &&
                        state.follow->file == data_location(config.stream.dataset);
  if (followed && state.finished) {
    return Stream::of_tests(config.stream,
                            {state.label_names, state.preprocessing, state.tests, state.targets},
                            state.data_digest);
  }
  if (!followed && state.tests.size() < 2) return Stream(config.stream);
  const LearntBefore before = before_last(state);
  TrainTest data;
  if (followed) {
    data = {as_dataset(state.follow->pending, state), as_dataset(state.tests.back(), state),
            config.stream.dataset};
  } else {
    data = load_dataset(config.stream.dataset, config.stream.table, config.stream.stream_seed,
                        before.label_names, before.preprocessing.columns);
  }
  if (before.tests.empty()) return {config.stream, std::move(data)};
  return {config.stream, std::move(data), before};
}

Stream further_stream(const RunConfig& config, const storage::PageReader& store) {
  const storage::Result<RunState> loaded = load_run_state(store);
  if (loaded.status().code() == storage::StatusCode::not_found) {
    throw InvalidOptions("further data need a store that has learnt before; " + store.location() +
                         " holds no run");
  }
  const RunState& state = value_or_throw(loaded);
  if (state.tests.empty()) {
    throw InvalidOptions("the store's run is over stream " +
                         std::string(enum_name(state.config.stream.stream)) +
                         ", whose end was known; one over stream single can go on with further "
                         "data");
  }
  if (!state.finished) {
    if (state.config.stream.dataset == data_location(config.stream.dataset)) {
      return run_stream(config, store);
    }
    throw InvalidOptions("the store's run has not finished learning " +
                         state.config.stream.dataset + "; go on with that first");
  }
  const std::vector<std::string> differing = further_differences(state.config, config);
  refuse_differing("further data are learnt as the store's run was set up", differing,
                   "use another store for another set-up");
  const LearntBefore before{state.label_names, state.preprocessing, state.tests, state.targets};
  TrainTest data =
      load_dataset(config.stream.dataset, config.stream.table, config.stream.stream_seed,
                   before.label_names, before.preprocessing.columns);
  Stream stream(config.stream, std::move(data), before);
  if (stream.data_digest() == state.data_digest && !(state.follow && state.follow->current)) {
    return run_stream(config, store);
  }
  return stream;
}

std::vector<std::string> further_differences(const RunConfig& stored, const RunConfig& asked) {
  constexpr std::array<std::string_view, 22> kFree = {
      "stream.target_column", "stream.dataset",    "stream.label_column",   "stream.header",
      "stream.separator",     "stream.encoding",   "stream.bad_rows",       "stream.test_share",
      "stream.limit",         "stream.test_limit", "stream.missing_values", "train.epochs",
      "train.batch",          "train.lr",          "train.expert_lr",       "train.lr_schedule",
      "train.commit_every",   "train.micro_batch", "train.clip_norm",       "train.router_lr",
      "train.warmup",         "train.weight_decay"};
  std::vector<std::string> fields = differences(stored, asked);
  std::erase_if(fields, [&](const std::string& field) {
    const std::string_view name = std::string_view(field).substr(0, field.find(':'));
    return std::find(kFree.begin(), kFree.end(), name) != kFree.end();
  });
  return fields;
}

}  // namespace perennial::continual
