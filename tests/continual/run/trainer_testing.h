// SPDX-License-Identifier: Apache-2.0
// Small runs over data that is the same on every machine.
#pragma once

#include <gtest/gtest.h>
#include <torch/types.h>

#include <boost/json/serialize.hpp>
#include <functional>
#include <string>
#include <utility>

#include "perennial/continual/evaluate.h"
#include "perennial/continual/trainer.h"
#include "perennial/kernels/philox.h"

namespace perennial::continual {

inline constexpr std::int64_t kFeatures = 12, kClasses = 4;

// Bytes whose classes differ in which pixels are bright: learnable, and the same on every machine.
inline Dataset make_data(std::int64_t n, std::uint64_t seed) {
  Dataset data;
  data.x = torch::empty({n, kFeatures}, torch::kByte);
  data.y = torch::empty({n}, torch::kLong);
  kernels::RandomStream random(seed);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t label = i % kClasses;
    data.y[i] = label;
    for (std::int64_t j = 0; j < kFeatures; ++j) {
      const bool bright = j % kClasses == label;
      data.x[i][j] = static_cast<int>(random.below(100)) + (bright ? 120 : 0);
    }
  }
  for (std::int64_t c = 0; c < kClasses; ++c) data.label_names.push_back(std::to_string(c));
  return data;
}

struct Case {
  std::string name;
  std::function<void(RunConfig&)> change;
};

inline const Case kPlain{"plain", [](RunConfig&) {}};
inline const Case kGrowFreeze{"grow_freeze", [](RunConfig&) {}};

inline void PrintTo(const Case& test_case, std::ostream* out) { *out << test_case.name; }

inline RunConfig small_config(const Case& test_case) {
  RunConfig config;
  config.stream.experiences = 3;
  config.train.batch = 16;
  config.train.commit_every = 4;
  config.train.lr = 0.01;
  config.train.gate_options.features = 32;
  config.model.hidden = 16;
  config.model.peer.heads = 2;
  config.model.peer.top_k = 3;
  config.model.peer.d_key = 8;
  config.model.peer.rows = 6;
  config.model.peer.cols = 6;
  config.model.peer.page_bytes = 256;
  test_case.change(config);
  return config;
}

inline Stream make_stream(const RunConfig& config) {
  return {config.stream, TrainTest{make_data(100, 7), make_data(40, 8), "bright pixels"}};
}

inline RunResult run(const RunConfig& config, storage::PageStore* store,
                     std::function<bool()> stop = {}, std::int64_t budget = 0) {
  RunSettings settings;
  settings.stop_requested = std::move(stop);
  settings.budget_bytes = budget;
  return Trainer(config, make_stream(config), store, settings).run();
}

inline std::string matrix_of(const RunResult& result) {
  return boost::json::serialize(result.matrix.to_json());
}

// Learns by one trainer after the other, the n-th (from 0) stopped after `steps(n)` steps, until
// the run ends. More than `more_than` trainers must be needed.
inline RunResult learn_in_parts(
    const std::function<RunResult(const std::function<bool()>& stop)>& learn,
    const std::function<int(int)>& steps, int more_than) {
  constexpr int kMost = 200;
  RunResult last;
  int trainers = 0;
  do {
    int polls = 0;
    const int wanted = steps(trainers);
    last = learn([&] { return ++polls >= wanted; });
  } while (!last.finished && ++trainers < kMost);
  EXPECT_TRUE(last.finished) << "after " << kMost << " trainers";
  EXPECT_GE(trainers, more_than);
  return last;
}

// 1, 2, 3, 1, ...: a stop in every step of an experience, if not of the same one.
inline int one_to_three(int trainer) { return 1 + trainer % 3; }

inline void expect_same_end(const RunResult& run, const RunResult& expected) {
  EXPECT_EQ(run.steps, expected.steps);
  EXPECT_EQ(matrix_of(run), matrix_of(expected));
  EXPECT_EQ(run.state_digest, expected.state_digest);
  EXPECT_EQ(run.gate_accuracy, expected.gate_accuracy);
}

// What the store holds answers as the run that learnt it did at its end.
inline void expect_answers_of(const RunResult& result, const storage::PageReader& store,
                              const Stream& stream) {
  const LearntModel learnt = load_learnt(store, 0);
  require_same_data(learnt, stream);
  const Evaluation evaluation =
      evaluate(*learnt.model, stream, learnt.config.gate() == GateKind::oracle);
  const std::int64_t last = result.matrix.experiences();
  ASSERT_EQ(stream.experiences(), last);
  for (std::int64_t j = 0; j < last; ++j) {
    EXPECT_EQ(evaluation.scores[static_cast<std::size_t>(j)], result.matrix.at(last, j));
  }
}

// validate() throws InvalidOptions with `word` in its message.
inline void expect_invalid(const RunConfig& config, const std::string& word) {
  try {
    config.validate();
    ADD_FAILURE() << "accepted: " << word;
  } catch (const InvalidOptions& error) {
    EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
  }
}

}  // namespace perennial::continual
