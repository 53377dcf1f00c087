// SPDX-License-Identifier: Apache-2.0
// Growth on drift: streams without announced boundaries, and distributions that return.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <filesystem>
#include <fstream>

#include "continual/run/run_testing.h"
#include "continual/run/trainer_testing.h"
#include "perennial/continual/trainer.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// 3,200 examples an experience are 200 steps.
RunConfig drift_config(std::int64_t experiences) {
  return small_config({"", [&](RunConfig& c) {
                         c.stream.experiences = experiences;
                         c.train.batch = 16;
                         c.train.commit_every = 7;
                         c.train.gate_options.ridge = 1;
                         c.train.gate_options.features = 200;
                         c.model.peer.rows = c.model.peer.cols = 16;
                         c.model.peer.heads = c.model.peer.top_k = 4;
                         c.model.peer.v_scale = 0.5;
                         c.train.strategy_options.set("growth", "drift");
                         c.train.strategy_options.set("drift_window", 40);
                       }});
}

// Bytes whose classes differ in which eighth of 64 pixels is bright.
Dataset wide_data(std::int64_t n, std::uint64_t seed) {
  constexpr std::int64_t kWide = 64, kNames = 8;
  Dataset data;
  data.x = torch::empty({n, kWide}, torch::kByte);
  data.y = torch::arange(n).remainder(kNames);
  kernels::RandomStream random(seed);
  auto* x = data.x.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < n * kWide; ++i) {
    const bool bright = i % kWide / kNames == i / kWide % kNames;
    x[i] = static_cast<std::uint8_t>(random.below(130) + (bright ? 120 : 0));
  }
  for (std::int64_t c = 0; c < kNames; ++c) data.label_names.push_back(std::to_string(c));
  return data;
}

Stream drifting_stream(const RunConfig& config) {
  static const TrainTest data{wide_data(3200, 7), wide_data(400, 8), "bright pixels"};
  return {config.stream, data};
}

class DriftRun : public FolderTest {
 protected:
  RunResult learn(const RunConfig& config, storage::PageStore* store = nullptr,
                  std::function<bool()> stop = {}) {
    RunSettings settings;
    settings.stop_requested = std::move(stop);
    settings.run_folder = folder_;
    return Trainer(config, drifting_stream(config), store, settings).run();
  }

  // (experience, step) of each event.
  std::vector<std::pair<std::int64_t, std::int64_t>> events(const std::string& name) const {
    std::vector<std::pair<std::int64_t, std::int64_t>> found;
    std::ifstream in(folder_ / "events.jsonl");
    for (std::string line; std::getline(in, line);) {
      const boost::json::object event = boost::json::parse(line).as_object();
      if (event.at("event").as_string() != name) continue;
      const boost::json::value* step = event.if_contains("step");
      found.emplace_back(event.at("experience").as_int64(), step != nullptr ? step->as_int64() : 0);
    }
    return found;
  }
};

TEST_F(DriftRun, FivePermutationsOpenFiveGenerationsUnannounced) {
  RunConfig config = drift_config(5);
  const RunResult found = learn(config);
  EXPECT_EQ(events("grow").size(), 4u);  // the first is there from the start
  // The third batch of each experience but the first shows it; none before it was learnt.
  EXPECT_THAT(events("drift"),
              ElementsAre(std::pair(1, 2), std::pair(2, 2), std::pair(3, 2), std::pair(4, 2)));
  std::filesystem::remove_all(folder_);
  config.train.strategy_options.set("growth", "experience");
  const RunResult announced = learn(config);
  // What the gate mistakes, it mistakes either way.
  EXPECT_GT(acc(announced.matrix).value(), 0.8);
  EXPECT_GT(acc(found.matrix).value(), acc(announced.matrix).value() - 0.01);
  EXPECT_GT(bwt_gem(found.matrix).value(), bwt_gem(announced.matrix).value() - 0.01);
}

TEST_F(DriftRun, TenPermutationsOpenTen) {
  learn(drift_config(10));
  EXPECT_EQ(events("grow").size(), 9u);
  EXPECT_EQ(events("drift").size(), 9u);
}

TEST_F(DriftRun, ADistributionThatReturnsOpensNoOther) {
  for (const std::string growth : {"drift", "experience"}) {
    std::filesystem::remove_all(folder_);
    RunConfig config = drift_config(6);  // A B A B A B
    config.stream.cycle = 2;
    config.train.return_novelty = 1.5;
    config.train.strategy_options.set("growth", growth.c_str());
    const RunResult result = learn(config);
    EXPECT_EQ(events("grow").size(), 1u);
    for (std::int64_t j = 0; j < 6; ++j) EXPECT_GT(result.matrix.at(6, j), 0.9) << j;
    EXPECT_EQ(events("drift").size(), growth == "drift" ? 5u : 0u);
  }
}

TEST_F(DriftRun, ThatNothingReturnsOpensAsMany) {
  RunConfig config = drift_config(10);
  config.train.return_novelty = 1.5;
  learn(config);
  EXPECT_EQ(events("grow").size(), 9u);
}

// An alarm over inputs that the generation knows is false, and it learns on.
TEST_F(DriftRun, AFalseAlarmStopsNothingWhereInputsAreKnown) {
  RunConfig config = drift_config(1);
  config.train.return_novelty = 1.5;
  config.train.strategy_options.set("drift_threshold", 0.1);
  config.train.strategy_options.set("drift_window", 4);
  config.train.strategy_options.set("drift_steps", 1);
  const RunResult result = learn(config);
  EXPECT_GT(events("drift").size(), 0u);
  EXPECT_EQ(events("grow").size(), 0u);
  EXPECT_EQ(events("freeze").size(), 1u);  // at the end
  config.train.strategy_options.set("growth", "experience");
  std::filesystem::remove_all(folder_);
  EXPECT_GT(result.matrix.at(1, 0), learn(config).matrix.at(1, 0) - 0.03);
}

// Stops within windows, while batches are held, and between drift and boundary.
TEST_F(DriftRun, StoppedAndContinuedEndsInTheSameState) {
  RunConfig config = drift_config(4);
  config.stream.cycle = 2;
  config.train.return_novelty = 1.5;
  const auto whole_store = storage::make_memory_store(), store = storage::make_memory_store();
  const RunResult whole = learn(config, whole_store.get());
  const RunResult last =
      learn_in_parts([&](const auto& stop) { return learn(config, store.get(), stop); },
                     [](int trainer) { return trainer % 2 == 0 ? 99 : one_to_three(trainer); }, 6);
  expect_same_end(last, whole);
}

// A detector that suspects half of all batches changes when they are learnt, and loses none.
TEST_F(DriftRun, BatchesThatWereClearedAreLearntLate) {
  RunConfig config = drift_config(1);
  config.train.strategy_options.set("drift_threshold", 0.1);
  config.train.strategy_options.set("drift_window",
                                    4);  // a longer one lags behind losses that fall
  config.train.strategy_options.set("drift_steps", 1000);
  const auto store = storage::make_memory_store();
  learn(config, store.get());
  EXPECT_EQ(events("drift").size(), 0u);
  EXPECT_GT(events("drift_cleared").size(), 10u) << "no batch was held: this says nothing";
  const AnalyticGate gate = AnalyticGate::load(*store);
  RunConfig plain = config;
  plain.train.strategy_options.set("growth", "experience");
  const auto plain_store = storage::make_memory_store();
  std::filesystem::remove_all(folder_);
  learn(plain, plain_store.get());
  // Both gates saw the same inputs: what one finds foreign, the other does.
  const torch::Tensor x = drifting_stream(config).test_batch(0, 0, 100).x;
  EXPECT_NEAR(gate.novelty(x, 0), AnalyticGate::load(*plain_store).novelty(x, 0), 1e-2);
}

TEST(DriftOptions, ThatCannotWorkAreRefused) {
  const auto refusal = [](const std::function<void(RunConfig&)>& change) {
    RunConfig config = drift_config(3);
    change(config);
    try {
      config.validate();
    } catch (const InvalidOptions& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal([](RunConfig&) {}), "");
  EXPECT_THAT(refusal([](RunConfig& c) { c.train.epochs = 2; }), HasSubstr("one pass"));
  EXPECT_THAT(refusal([](RunConfig& c) { c.stream.stream = StreamKind::single; }),
              HasSubstr("stream that changes"));
  EXPECT_THAT(refusal([](RunConfig& c) { c.train.gate = GateChoice::oracle; }),
              HasSubstr("analytic gate"));
  EXPECT_THAT(refusal([](RunConfig& c) { c.train.lr_schedule = LrSchedule::cosine; }),
              HasSubstr("lr_schedule constant"));
  EXPECT_THAT(refusal([](RunConfig& c) { c.train.strategy = StrategySet("grow_freeze+er"); }),
              HasSubstr("is for strategy grow_freeze"));
  EXPECT_THAT(
      refusal([](RunConfig& c) { c.stream.cycle = 2, c.stream.stream = StreamKind::split; }),
      HasSubstr("cycle"));
}

}  // namespace
}  // namespace perennial::continual
