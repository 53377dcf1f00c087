// SPDX-License-Identifier: Apache-2.0
// Runs over small images, stopped and continued.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "continual/run/trainer_testing.h"
#include "perennial/continual/trainer.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {

// Images of 3 x 4 pixels.
inline TrainTest image_data() {
  TrainTest data{make_data(100, 7), make_data(40, 8), "bright pixels"};
  for (Dataset* part : {&data.train, &data.test}) {
    part->image_rows = 3;
    part->image_cols = 4;
  }
  return data;
}

inline RunResult learn(const RunConfig& config, Stream stream, storage::PageStore* store,
                       std::function<bool()> stop = {}) {
  RunSettings settings;
  settings.stop_requested = std::move(stop);
  return Trainer(config, std::move(stream), store, settings).run();
}

// Runs whole into `whole_store`, and again with stops after one, two and three steps in turn: the
// ends are the same. `stream` makes the run's stream anew.
inline RunResult expect_resumes(const RunConfig& config, const std::function<Stream()>& stream,
                                storage::PageStore* whole_store) {
  const auto store = storage::make_memory_store();
  RunResult whole = learn(config, stream(), whole_store);
  const RunResult last =
      learn_in_parts([&](const auto& stop) { return learn(config, stream(), store.get(), stop); },
                     one_to_three, 4);
  expect_same_end(last, whole);
  return whole;
}

}  // namespace perennial::continual
