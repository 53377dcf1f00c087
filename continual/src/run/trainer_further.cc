// SPDX-License-Identifier: Apache-2.0
// How a finished run goes on with further data.
#include <algorithm>
#include <utility>

#include "perennial/core/error.h"
#include "run/trainer_impl.h"

namespace perennial::continual {

void Trainer::Impl::take_further(RunState stored) {
  if (stored.config.train.anytime.on()) {
    throw InvalidOptions(
        "a run with an anytime curve is over a stream of known length and cannot "
        "go on with further data");
  }
  if (stream.classes() < std::ssize(stored.label_names) ||
      !std::equal(stored.label_names.begin(), stored.label_names.end(),
                  stream.label_names().begin())) {
    throw DataError("the labels of the further data do not begin with those of the store's run");
  }
  if (stored.follow) stored.follow->current = false;
  const auto learnt = static_cast<std::int64_t>(stored.label_names.size());
  const StreamShape before = stored.shape();
  const StreamShape now{stream.classes(), stream.experiences(), stored.preprocessing};
  strategy = make_strategy(state.config, before);
  strategy_state = StrategyState(strategy);
  strategy_state.load(*store, settings.placement.device);
  if (!strategy->extend(before, now)) {
    std::string message = "strategy " + state.config.train.strategy.text() + " cannot go on with ";
    message += now.classes > before.classes
                   ? std::to_string(now.classes - before.classes) + " new classes"
                   : std::string("further data");
    throw InvalidOptions(message +
                         ": its state is that of the data it was told of at the start; naive, "
                         "grow_freeze, er, er_ace and their compositions can");
  }
  model = load_model(state.config, stream.features(), stream.task().outputs(), *store,
                     settings.budget_bytes, learnt, settings.placement);
  dense.load(*store);
  boundaries = Boundaries::load(*store);
  dense.forget_reshaped(model->trainable());
  state_digest = value_or_throw(store->head()).state_digest.hex();

  // `state` is that of a new run over this stream so far.
  stored.tests.push_back(std::move(state.tests.back()));
  stored.classes_after.push_back(stream.classes());
  stored.config = std::move(state.config);
  stored.label_names = stream.label_names();
  stored.data_digest = stream.data_digest();
  stored.position = {stream.earlier(), 0, 0};
  stored.finished = false;
  stored.matrix.extend();
  if (settings.follow) stored.follow = std::move(state.follow);
  state = std::move(stored);
  run_entries.loaded(*store);
  resumed = continues = true;
}

}  // namespace perennial::continual
