// SPDX-License-Identifier: Apache-2.0
// Runs over small images, stopped and continued.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "perennial/continual/trainer.h"
#include "perennial/storage/memory_store.h"
#include "trainer_testing.h"

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

// Runs whole into `whole_store`, and again with stops after one, two and three steps in turn:
// matrix, gate and state digest are the same. `stream` makes the run's stream anew.
inline RunResult expect_resumes(const RunConfig& config, const std::function<Stream()>& stream,
                                storage::PageStore* whole_store) {
  const auto store = storage::make_memory_store();
  const RunResult whole = learn(config, stream(), whole_store);
  RunResult last;
  int trainers = 0;
  do {
    int polls = 0;
    const int steps = 1 + trainers % 3;
    last = learn(config, stream(), store.get(), [&] { return ++polls >= steps; });
  } while (!last.finished && ++trainers < 200);
  EXPECT_TRUE(last.finished);
  EXPECT_GT(trainers, 3);
  EXPECT_EQ(matrix_of(last), matrix_of(whole));
  EXPECT_EQ(last.state_digest, whole.state_digest);
  EXPECT_EQ(last.gate_accuracy, whole.gate_accuracy);
  return whole;
}

inline void expect_refused(const RunConfig& config, const char* word) {
  try {
    config.validate();
    ADD_FAILURE() << "accepted: " << word;
  } catch (const InvalidOptions& error) {
    EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
  }
}

}  // namespace perennial::continual
