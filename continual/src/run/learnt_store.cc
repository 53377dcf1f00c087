// SPDX-License-Identifier: Apache-2.0
// Using a learnt store without its stream, and committing what was changed in it by hand.
#include <algorithm>

#include "perennial/continual/trainer.h"
#include "perennial/core/dense_state.h"
#include "run/run_note.h"
#include "run/run_state.h"
#include "strategies/strategy_state.h"

namespace perennial::continual {

namespace json = boost::json;

storage::Result<RunConfig> stored_config(const storage::PageReader& store) {
  storage::Result<RunState> state = load_run_state(store);
  if (!state.ok()) return state.status();
  return std::move(state->config);
}

LearntBefore LearntModel::known() const {
  const bool labels = task->kind() == TaskKind::classification;
  return {labels ? task->names() : std::vector<std::string>{}, preprocessing, tests, targets};
}

void require_same_data(const LearntModel& learnt, const Stream& stream) {
  require_data(learnt.data_digest, stream);
}

LearntModel load_learnt(const storage::PageReader& store, std::int64_t budget_bytes,
                        const Placement& wanted,
                        const std::function<void(const std::string&)>& on_warning) {
  RunState state = value_or_throw(load_run_state(store));
  std::shared_ptr<const Task> task = state.task();
  Placement placement = wanted;
  const auto load = [&] {
    return load_model(state.config, state.preprocessing.features, task->outputs(), store,
                      budget_bytes, 0, placement);
  };
  std::unique_ptr<Model> model;
  try {
    model = load();
  } catch (const DeviceError& error) {
    if (!placement.or_cpu) throw;
    if (on_warning) on_warning(without_device(error));
    placement = {};
    model = load();
  }
  std::shared_ptr<Strategy> strategy = make_strategy(state.config, state.shape());
  StrategyState(strategy).load(store, placement.device);
  model = answering_model(std::move(model), std::move(strategy));
  const json::object note = note_with(store, "pager");
  return {std::move(state.config),
          state.preprocessing,
          state.targets,
          std::move(task),
          state.data_digest,
          std::move(model),
          std::move(placement),
          state.finished,
          state.finished ? state.matrix.experiences() : state.position.experience,
          note.empty() ? json::object{} : note.at("pager").as_object(),
          std::move(state.tests)};
}

storage::CommitInfo commit_model(storage::PageStore& store, Model& model, const std::string& action,
                                 const std::string& snapshot) {
  storage::CommitRequest request;
  model.add_to_commit(request);
  // Moments of parameters that no longer train.
  const auto trainable = model.trainable();
  for (const std::string& name : store.dense_names()) {
    if (!name.starts_with("optimizer/")) continue;
    const bool kept = std::any_of(trainable.begin(), trainable.end(), [&](const auto& item) {
      return name.starts_with("optimizer/" + item.first + "/");
    });
    if (!kept) request.removed_dense.push_back(name);
  }
  request.snapshot = snapshot;
  json::object note = note_with(store, "events_bytes");  // what a run resumes from stays at hand
  note["action"] = action;
  note["machine"] = machine();
  note.erase("acc");  // it was measured on the model before
  if (model.experts() != nullptr) note["generations"] = model.experts()->generations();
  request.note = record_text(note);
  storage::Result<storage::CommitInfo> info = store.commit(request);
  if (!info.ok()) {
    model.commit_failed();
    throw StorageError(info.status());
  }
  model.committed();
  return std::move(*info);
}

}  // namespace perennial::continual
