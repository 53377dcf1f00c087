// SPDX-License-Identifier: Apache-2.0
// Runs on a device: every strategy, model and optimizer learns there what it learns on the CPU, to
// rounding; two such runs, and one that is stopped and continued, have the same bits; and a run
// goes on where another device left it.
#include <cmath>

#include "continual/run/run_testing.h"
#include "device_run_testing.h"
#include "perennial/core/dense_state.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

// Of accuracies, in test examples of 40: what rounding may turn.
constexpr double kFewAnswers = 3.0 / 40;
// Of a tensor, by its length. Rounding grows as a run goes on: two of three experts that were
// chosen by nearly equal scores may change places. A gradient that is missing or doubled makes this
// 0.3 and more.
constexpr double kRounding = 0.02;

class DeviceRunTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (const std::string why = cuda::no_device(); !why.empty()) GTEST_SKIP() << why;
    config_ = small_config(GetParam());
    config_.validate();
  }

  void expect_near(const RunResult& a, const RunResult& b) const {
    ASSERT_TRUE(a.finished && b.finished);
    EXPECT_EQ(a.steps, b.steps);
    for (std::int64_t i = 0; i <= a.matrix.experiences(); ++i) {
      for (std::int64_t j = 0; j < a.matrix.experiences(); ++j) {
        ASSERT_EQ(a.matrix.has(i, j), b.matrix.has(i, j));
        if (!a.matrix.has(i, j)) continue;
        EXPECT_NEAR(a.matrix.at(i, j), b.matrix.at(i, j), kFewAnswers) << i << ", " << j;
      }
    }
  }

  RunConfig config_;
};

// Tensors that were learnt: the same names and shapes, and values to rounding.
void expect_learnt_alike(const storage::PageStore& a, const storage::PageStore& b) {
  ASSERT_EQ(a.dense_names(), b.dense_names());
  for (const std::string& name : a.dense_names()) {
    if (!name.starts_with("dense/") && !name.starts_with("peer/") &&
        !name.ends_with("/importance") && !name.ends_with("/anchor")) {
      continue;
    }
    const at::Tensor left = tensor_from(value_or_throw(a.read_dense(name)), name).to(at::kDouble);
    const at::Tensor right = tensor_from(value_or_throw(b.read_dense(name)), name).to(at::kDouble);
    ASSERT_EQ(left.sizes(), right.sizes()) << name;
    const double difference = (left - right).norm().item<double>();
    EXPECT_LE(difference, kRounding * left.norm().item<double>() + 1e-6) << name;
  }
  EXPECT_EQ(a.pages().size(), b.pages().size());
}

TEST_P(DeviceRunTest, LearnsWhatTheCpuLearns) {
  const auto there = storage::make_memory_store(), here = storage::make_memory_store();
  const RunResult on_cpu = run_on({}, config_, here.get());
  const RunResult result = run_on(on_device(), config_, there.get());
  expect_near(result, on_cpu);
  expect_learnt_alike(*there, *here);
}

TEST_P(DeviceRunTest, StoppedAndContinuedAtEveryStepEndsInTheSameState) {
  const auto whole_store = storage::make_memory_store(), store = storage::make_memory_store();
  const RunResult whole = run_on(on_device(), config_, whole_store.get());
  const RunResult last = learn_in_parts(
      [&](const auto& stop) { return run_on(on_device(), config_, store.get(), stop); },
      one_to_three, 5);
  expect_same_end(last, whole);
  EXPECT_EQ(cuda::content_of(*store), cuda::content_of(*whole_store));
}

TEST_P(DeviceRunTest, GoesOnWhereAnotherDeviceStopped) {
  const auto store = storage::make_memory_store();
  int trainer = 0;
  const RunResult last = learn_in_parts(
      [&](const auto& stop) {
        return run_on(trainer++ % 2 == 0 ? on_device() : Placement{}, config_, store.get(), stop);
      },
      [](int number) { return 3 + number % 3; }, 3);
  expect_near(last, run_on({}, config_, nullptr));
}

TEST_P(DeviceRunTest, WhatWasLearntAnswersOnEither) {
  const auto store = storage::make_memory_store();
  const RunResult result = run_on(on_device(), config_, store.get());
  const LearntModel there = load_learnt(*store, 0, on_device()), here = load_learnt(*store, 0);
  const Stream stream = make_stream(config_);
  const bool oracle = config_.gate() == GateKind::oracle;
  const Evaluation answers = evaluate(*there.model, stream, oracle);
  const Evaluation on_cpu = evaluate(*here.model, stream, oracle);
  const std::int64_t last = result.matrix.experiences();
  for (std::int64_t j = 0; j < last; ++j) {
    const auto at = static_cast<std::size_t>(j);
    EXPECT_EQ(answers.scores[at], result.matrix.at(last, j));
    EXPECT_NEAR(answers.scores[at], on_cpu.scores[at], kFewAnswers);
  }
  const Prediction prediction = there.model->predict(stream.test_batch(0, 0, 5).x, 0);
  EXPECT_TRUE(prediction.answers.is_cpu() && prediction.generations.is_cpu());
}

class DeviceRecordTest : public FolderTest {
 protected:
  void SetUp() override {
    if (const std::string why = cuda::no_device(); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_F(DeviceRecordTest, TellsOfTheDeviceAndOfTheRoutingThere) {
  const RunConfig config = small_config({"", [](RunConfig&) {}});
  const auto store = storage::make_memory_store();
  RunSettings settings;
  settings.run_folder = folder_;
  settings.placement = on_device();
  const RunResult result = Trainer(config, make_stream(config), store.get(), settings).run();
  EXPECT_EQ(result.to_json().at("device").as_string(), settings.placement.device.str());
  const std::string events = read_text(folder_ / "events.jsonl");
  std::size_t routings = 0;
  for (std::size_t at = 0; (at = events.find("\"event\":\"routing\"", at)) != events.npos; ++at) {
    ++routings;
  }
  EXPECT_EQ(routings, 3U);
  EXPECT_NE(events.find("\"usage\":"), events.npos);
  if (settings.placement.device.is_cpu()) return;
  EXPECT_NE(events.find("\"device\":\"the device\""), events.npos);
  // What was made there has other bits elsewhere.
  settings.placement = {};
  settings.exact = true;
  EXPECT_THROW(Trainer(config, make_stream(config), store.get(), settings), InvalidOptions);
}

Case strategy(const std::string& name, const std::function<void(RunConfig&)>& change = {}) {
  return {name, [name, change](RunConfig& c) {
            c.train.strategy = StrategySet(name);
            c.model.model = ModelKind::mlp;
            c.train.epochs = 2;
            c.train.lr = 0.03;
            StrategyOptions& options = c.train.strategy_options;
            options.set("memory", 24);
            options.set("task_memory", 8);
            options.set("gdumb_epochs", 5);
            options.set("ewc_strength", 50);
            options.set("si_strength", 5);
            options.set("mas_strength", 0.05);
            if (change) change(c);
          }};
}
Case named(const std::string& name, Case test_case) {
  test_case.name = name;
  return test_case;
}
void tasks(RunConfig& c) {
  c.stream.stream = StreamKind::split;
  c.stream.experiences = 2;
  c.stream.scenario = Scenario::task_incremental;
}

INSTANTIATE_TEST_SUITE_P(
    Models, DeviceRunTest,
    ::testing::Values(
        Case{"grow_freeze", [](RunConfig&) {}},
        Case{"grow_freeze_bf16", [](RunConfig& c) { c.train.amp = Amp::bf16; }},
        Case{"grow_freeze_oracle", [](RunConfig& c) { c.train.gate = GateChoice::oracle; }},
        Case{"grow_freeze_mixed",
             [](RunConfig& c) { c.train.gate_options.gate_answer = GateAnswer::mixed; }},
        Case{"grow_freeze_autoencoder",
             [](RunConfig& c) {
               c.train.gate = GateChoice::autoencoder;
               c.train.autoencoder_options.autoencoder_code = 4;
             }},
        Case{"grow_freeze_shared",
             [](RunConfig& c) {
               c.model.peer.routing = Routing::shared;
               c.train.strategy_options.set("output_regularisation", 1);
             }},
        Case{"grow_freeze_shared_trunk",
             [](RunConfig& c) {
               c.model.peer.routing = Routing::shared;
               c.model.peer.query_norm = QueryNorm::rms;
               c.model.width = 8;
             }},
        Case{"grow_freeze_trunk_bf16",
             [](RunConfig& c) {
               c.model.peer.routing = Routing::shared;
               c.model.peer.query_norm = QueryNorm::layer;
               c.model.width = 8;
               c.train.amp = Amp::bf16;
             }},
        Case{"grow_freeze_dropout", [](RunConfig& c) { c.model.dropout = 0.25; }},
        Case{"grow_freeze_by_need",
             [](RunConfig& c) {
               c.train.epochs = 4;
               c.train.strategy_options.set("growth_size", "need");
               c.train.strategy_options.set("growth_start", 2);
               c.train.strategy_options.set("growth_loss", 0.01);
               c.train.strategy_options.set("growth_window", 4);
             }},
        Case{"grow_freeze_sgd",
             [](RunConfig& c) {
               c.train.optimizer = OptimizerKind::sgd;
               c.train.lr = 0.2;
             }},
        Case{"grow_freeze_adagrad",
             [](RunConfig& c) {
               c.train.expert_optimizer = ExpertOptimizer::rowwise_adagrad;
               c.train.expert_lr = 0.05;
             }},
        Case{"grow_on_drift",
             [](RunConfig& c) {
               c.train.strategy_options.set("growth", "drift");
               c.train.strategy_options.set("drift_window", 4);
               c.train.strategy_options.set("drift_steps", 2);
             }},
        Case{"grow_freeze_lwf",
             [](RunConfig& c) { c.train.strategy = StrategySet("grow_freeze+lwf"); }},
        Case{"naive_peer", [](RunConfig& c) { c.train.strategy = "naive"; }},
        Case{"sparse_slot",
             [](RunConfig& c) {
               c.train.strategy = "sparse_slot";
               c.train.strategy_options.set("update_slots", 6);
             }},
        Case{"head_of_the_pool",
             [](RunConfig& c) {
               c.model.head = HeadKind::analytic;
               c.model.head_inputs = HeadInputs::filters;
               c.model.head_filters = 0;
               c.model.head_pool = 16;
             }}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Strategies, DeviceRunTest,
    ::testing::Values(
        strategy("naive"), strategy("l2"), strategy("ewc"), strategy("online_ewc"), strategy("mas"),
        strategy("si"), strategy("lwf"), strategy("gem"), strategy("agem"), strategy("er"),
        strategy("er_ace"), named("derpp", strategy("der++")),
        strategy("icarl",
                 [](RunConfig& c) {
                   c.stream.stream = StreamKind::split;
                   c.stream.experiences = 2;
                 }),
        strategy("gdumb"),
        named("ewc_exact_tasks", strategy("ewc",
                                          [](RunConfig& c) {
                                            tasks(c);
                                            c.train.strategy_options.set("fisher", "exact");
                                          })),
        named("online_ewc_batched",
              strategy("online_ewc",
                       [](RunConfig& c) { c.train.strategy_options.set("fisher", "batched"); })),
        named("packnet", strategy("packnet", tasks)),
        named("progressive", strategy("progressive", tasks)),
        named("naive_dropout", strategy("naive", [](RunConfig& c) { c.model.dropout = 0.25; })),
        named("naive_sgd", strategy("naive",
                                    [](RunConfig& c) {
                                      c.train.optimizer = OptimizerKind::sgd;
                                      c.train.lr = 0.2;
                                    })),
        named("naive_bf16", strategy("naive", [](RunConfig& c) { c.train.amp = Amp::bf16; }))),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace perennial::continual
