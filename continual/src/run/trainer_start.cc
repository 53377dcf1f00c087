// SPDX-License-Identifier: Apache-2.0
// How a run begins: a new one, or one that a store holds.
#include <boost/json/serialize.hpp>
#include <utility>

#include "perennial/continual/dataset.h"
#include "perennial/continual/further_data.h"
#include "run/run_note.h"
#include "run/trainer_impl.h"

namespace perennial::continual {

namespace json = boost::json;

Trainer::Impl::Impl(const RunConfig& config, Stream run_stream, storage::PageStore* run_store,
                    const RunSettings& run_settings)
    : settings(run_settings),
      stream(std::move(run_stream)),
      store(run_store),
      strategy(
          make_strategy(config, {stream.classes(), stream.experiences(), stream.preprocessing()})),
      training(strategy->training_stream(stream)),
      dense(config.train),
      record(settings.run_folder),
      probe(stream, config.train.anytime),
      routing(stream, settings.run_folder.empty() ? 0 : settings.routing_inputs) {
  state.config = config;
  state.config.stream.dataset = data_location(config.stream.dataset);
  state.preprocessing = stream.preprocessing();
  state.targets = stream.targets();
  state.label_names = stream.label_names();
  state.data_digest = stream.data_digest();
  state.matrix = ScoreMatrix(stream.experiences());
  state.anytime = probe.empty_curve(training);
  if (config.stream.stream == StreamKind::single) {
    for (std::int64_t e = 0; e < stream.test_sets(); ++e) {
      state.tests.push_back(stream.test_rows(e));
    }
    state.classes_after.assign(state.tests.size(), stream.classes());
  }
  if (settings.follow) {
    state.follow = FollowState{state.config.stream.dataset, settings.follow->position,
                               settings.follow->rows, true, stream.train_rows()};
  }
  refuse_single_examples();
  if (settings.commit_dirty_bytes > 0 && settings.placement.place) {
    throw InvalidOptions("commit_dirty counts changed pages of the host, and those of " +
                         settings.placement.device.str() +
                         " get there as a commit begins; use commit_every or commit_seconds");
  }
  const storage::StatusCode head =
      store == nullptr ? storage::StatusCode::not_found : store->head().status().code();
  if (head == storage::StatusCode::ok) {
    resume();
  } else if (stream.earlier() > 0) {
    throw InvalidOptions("further data need a store that has learnt before");
  } else if (head != storage::StatusCode::not_found) {
    throw StorageError(store->head().status());
  } else {
    model =
        make_model(config, stream.features(), stream.task().outputs(), store, settings.budget_bytes,
                   {stream.image_rows(), stream.image_cols()}, settings.placement);
  }
  if (ExpertLayers* experts = model->experts()) {
    if (model->learns_by_gradient()) {
      for (const auto& pool : experts->pools()) {
        sparse.push_back(std::make_unique<SparseOptimizer>(*pool, config.train.experts()));
      }
    }
    experts->require_budget();
  }
  for (std::int64_t e = 0; e < training.experiences(); ++e) {
    progress.examples_total += training.train_size(e) * config.train.epochs;
  }
  progress.experiences = training.experiences();
  if (store != nullptr) make_committer();
}

// Batch norm has no statistics of one example; the last batch of a pass may be so small.
void Trainer::Impl::refuse_single_examples() const {
  const RunConfig& config = state.config;
  if (config.model.model != ModelKind::peer || config.model.head == HeadKind::analytic ||
      config.model.peer.query_norm != QueryNorm::batch) {
    return;
  }
  for (std::int64_t e = 0; e < training.experiences(); ++e) {
    if (training.train_size(e) % config.train.batch != 1) continue;
    throw InvalidOptions("the " + std::to_string(training.train_size(e)) +
                         " training examples of experience " + std::to_string(e + 1) +
                         " end in a batch of one, and query_norm batch needs two; use another "
                         "batch than " +
                         std::to_string(config.train.batch) + ", or a limit");
  }
}

void Trainer::Impl::resume() {
  storage::Result<RunState> stored = load_run_state(*store);
  if (!stored.ok()) throw StorageError(stored.status());
  const bool further =
      stored->finished && stream.earlier() > 0 && stream.earlier() == stored->matrix.experiences();
  const std::vector<std::string> differing = further
                                                 ? further_differences(stored->config, state.config)
                                                 : differences(stored->config, state.config);
  refuse_differing("the store's run has another configuration", differing,
                   "resume it with its own, or use another store");
  if (!further) require_data(stored->data_digest, stream);
  const json::object here = machine(settings.placement);
  const json::object there = note_with(*store, "machine");
  if (settings.exact && !there.empty() && there.at("machine") != json::value(here)) {
    throw InvalidOptions("the run was made with " + json::serialize(there.at("machine")) +
                         ", this process has " + json::serialize(here) +
                         ": it would not continue bit for bit");
  }
  if (settings.on_warning && !stored->finished && !there.empty() &&
      there.at("machine") != json::value(here)) {
    settings.on_warning("the run was made with " + json::serialize(there.at("machine")) +
                        ", this process has " + json::serialize(here) +
                        ": it may not continue bit for bit");
  }
  if (further) return take_further(std::move(*stored));
  stored->anytime = AnytimeCurve{state.anytime.options, state.anytime.task, state.anytime.test_sets,
                                 state.anytime.experiences, std::move(stored->anytime.points)};
  state = std::move(*stored);
  run_entries.loaded(*store);
  model = load_model(state.config, stream.features(), stream.task().outputs(), *store,
                     settings.budget_bytes, 0, settings.placement);
  dense.load(*store);
  strategy_state.load(*store, settings.placement.device);
  state_digest = value_or_throw(store->head()).state_digest.hex();
  boundaries = Boundaries::load(*store);
  resumed = true;
}

std::int64_t Trainer::Impl::examples_before(const Position& position) const {
  std::int64_t done = 0;
  const TrainOptions& options = state.config.train;
  for (std::int64_t e = 0; e < position.experience; ++e) {
    done += training.train_size(e) * options.epochs;
  }
  if (position.experience < training.experiences()) {
    done += training.train_size(position.experience) * position.epoch +
            std::min(position.step * options.batch, training.train_size(position.experience));
  }
  return done;
}

}  // namespace perennial::continual
