// SPDX-License-Identifier: Apache-2.0
// What makes the learner better: schedules, mixed answers, class heads, the analytic head, and
// distributions that return. Each resumes with the same bits.
#include <gtest/gtest.h>

#include "continual/run/learner_testing.h"

namespace perennial::continual {
namespace {

// Split over eight classes whose images return: of experiences A B A B, two classes each, the third
// has the first's images under new names.
TrainTest returning_data() {
  TrainTest data = image_data();
  for (Dataset* part : {&data.train, &data.test}) {
    const std::int64_t n = part->size();
    part->y = torch::arange(n).remainder(kClasses) +
              torch::arange(n).div(kClasses, "floor").remainder(2) * kClasses;
    for (std::int64_t c = kClasses; c < 2 * kClasses; ++c) {
      part->label_names.push_back(std::to_string(c));
    }
  }
  return data;
}

RunConfig returning_config() {
  RunConfig config = small_config({"", [](RunConfig& c) {
                                     c.stream.stream = StreamKind::split;
                                     c.stream.experiences = 4;
                                     c.train.return_novelty = 1.4;
                                   }});
  return config;
}

Stream stream_of(const RunConfig& config) {
  return {config.stream, config.stream.stream == StreamKind::split && config.stream.experiences == 4
                             ? returning_data()
                             : image_data()};
}

RunResult learn(const RunConfig& config, storage::PageStore* store,
                std::function<bool()> stop = {}) {
  return learn(config, stream_of(config), store, std::move(stop));
}

class LearnerTest : public ::testing::TestWithParam<Case> {};

TEST_P(LearnerTest, StoppedAndContinuedAtEveryStepEndsInTheSameState) {
  RunConfig config = small_config(GetParam());
  const auto store = storage::make_memory_store();
  const RunResult whole = expect_resumes(
      config, [&] { return stream_of(config); }, store.get());
  expect_answers_of(whole, *store, stream_of(config));
}

TEST_P(LearnerTest, LearnsSomething) {
  const RunConfig config = small_config(GetParam());
  const RunResult result = learn(config, nullptr);
  EXPECT_GT(result.matrix.at(3, 2), result.matrix.at(0, 2) + 0.2);
}

void analytic_head(RunConfig& c) {
  c.model.head = HeadKind::analytic;
  c.model.head_filters = 3;
  c.model.head_filter_size = 2;
  c.model.head_grid = 2;
  c.model.head_pool = 20;
  c.model.peer.v_scale = 1;
}

INSTANTIATE_TEST_SUITE_P(
    Runs, LearnerTest,
    ::testing::Values(
        Case{"linear", [](RunConfig& c) { c.train.lr_schedule = LrSchedule::linear; }},
        Case{"cosine_two_epochs",
             [](RunConfig& c) {
               c.train.lr_schedule = LrSchedule::cosine;
               c.train.epochs = 2;
             }},
        Case{"linear_sgd_joint_mlp",
             [](RunConfig& c) {
               c.train.lr_schedule = LrSchedule::linear;
               c.train.optimizer = OptimizerKind::sgd;
               c.train.lr = 0.4;
               c.train.strategy = "joint";
               c.model.model = ModelKind::mlp;
             }},
        Case{"mixed",
             [](RunConfig& c) {
               c.train.gate_options.gate_answer = GateAnswer::mixed;
               c.train.gate_options.gate_temperature = 4;
             }},
        Case{"class_heads", [](RunConfig& c) { c.train.gate_options.head_weight = 5; }},
        Case{"mixed_class_heads_of_images",
             [](RunConfig& c) {
               AnalyticGateOptions& gate = c.train.gate_options;
               gate.gate_answer = GateAnswer::mixed;
               gate.head_weight = 5;
               gate.gate_features = FeatureKind::convolution;
               gate.gate_filters = 6;
               gate.gate_filter_size = 2;
               gate.gate_grid = 2;
               gate.ridge = 1;
             }},
        Case{"analytic_head", analytic_head},
        Case{"analytic_head_naive_without_pool",
             [](RunConfig& c) {
               analytic_head(c);
               c.train.strategy = "naive";
               c.model.head_pool = 0;
             }},
        Case{"analytic_head_joint_pool_alone",
             [](RunConfig& c) {
               analytic_head(c);
               c.train.strategy = "joint";
               c.model.head_filters = 0;
             }},
        Case{"analytic_head_of_columns",
             [](RunConfig& c) {
               c.train.strategy = "naive";
               c.model.head = HeadKind::analytic;
               c.model.head_inputs = HeadInputs::columns;
               c.model.head_width = 48;
             }}),
    [](const auto& info) { return info.param.name; });

TEST(LearningRate, FollowsItsSchedule) {
  for (const std::int64_t step : {0, 3, 9}) {
    EXPECT_EQ(lr_factor(LrSchedule::constant, step, 10), 1);
    EXPECT_DOUBLE_EQ(lr_factor(LrSchedule::linear, step, 10), 1 - step / 10.0);
  }
  EXPECT_EQ(lr_factor(LrSchedule::cosine, 0, 10), 1);
  EXPECT_NEAR(lr_factor(LrSchedule::cosine, 5, 10), 0.5, 1e-12);
  EXPECT_GT(lr_factor(LrSchedule::cosine, 9, 10), 0);
  EXPECT_LT(lr_factor(LrSchedule::cosine, 9, 10), 0.03);
}

TEST(LearningRate, ActsOnDenseParametersAndOnExperts) {
  // A first step at the full rate is the same under every schedule, the next ones are not.
  const auto digest = [](LrSchedule schedule, const char* strategy, int steps) {
    RunConfig config = small_config({"", [](RunConfig&) {}});
    config.train.strategy = strategy;
    config.train.lr_schedule = schedule;
    const auto store = storage::make_memory_store();
    int polls = 0;
    learn(config, store.get(), [&] { return ++polls >= steps; });
    const LearntModel learnt = load_learnt(*store, 0);
    const ExpertValues experts = learnt.model->only_layer()->pool().experts_at({0, 1, 2, 3});
    double sum = experts.v.to(torch::kDouble).abs().sum().item<double>();
    return std::pair{sum, learnt.model->trainable()[0].second.sum().item<double>()};
  };
  const auto constant = digest(LrSchedule::constant, "naive", 1);
  EXPECT_EQ(digest(LrSchedule::linear, "naive", 1), constant);
  const auto later = digest(LrSchedule::constant, "naive", 4);
  const auto decayed = digest(LrSchedule::linear, "naive", 4);
  EXPECT_NE(decayed.first, later.first) << "experts";
  EXPECT_NE(decayed.second, later.second) << "dense parameters";
}

TEST(AnalyticHeadRun, ClassesInTurnEndWhereJointTrainingEnds) {
  RunConfig config = small_config({"", analytic_head});
  config.stream.stream = StreamKind::split;
  config.stream.experiences = 2;
  const RunResult in_turn = learn(config, nullptr);
  config.train.strategy = "joint";
  const RunResult joint = learn(config, nullptr);
  EXPECT_GT(acc(joint.matrix), 0.8);
  for (std::int64_t j = 0; j < 2; ++j) {
    // One of 20 examples may fall the other way by rounding.
    EXPECT_NEAR(in_turn.matrix.at(2, j), joint.matrix.at(2, j), 0.051);
  }
}

TEST(Returning, ADistributionThatReturnsOpensNoGeneration) {
  RunConfig config = returning_config();
  const auto store = storage::make_memory_store();
  const RunResult result = learn(config, store.get());
  EXPECT_TRUE(result.finished);
  const LearntModel learnt = load_learnt(*store, 0);
  EXPECT_EQ(learnt.model->only_layer()->pool().generations().size(), 2U);
  EXPECT_EQ(learnt.model->gate()->generations(), 2);
  for (std::int64_t e = 0; e < 4; ++e) EXPECT_EQ(learnt.model->generation_of(e), e % 2);
  EXPECT_GT(*result.gate_accuracy, 0.9) << "the generation that an experience returned to counts";
  EXPECT_TRUE(learnt.model->only_layer()->frozen_intact());
  config.train.return_novelty = 0;
  const auto always = storage::make_memory_store();
  learn(config, always.get());
  EXPECT_EQ(load_learnt(*always, 0).model->only_layer()->pool().generations().size(), 4U);
}

TEST(Returning, ResumesAtEveryStep) {
  const RunConfig config = returning_config();
  const auto store = storage::make_memory_store();
  expect_resumes(
      config, [&] { return stream_of(config); }, store.get());
}

TEST(Returning, PermutationsDoNotReturn) {
  RunConfig config = small_config({"", [](RunConfig& c) {
                                     c.stream.experiences = 4;
                                     c.train.return_novelty = 1.4;
                                     c.train.gate_options.features = 64;
                                   }});
  const auto store = storage::make_memory_store();
  learn(config, store.get());
  EXPECT_EQ(load_learnt(*store, 0).model->only_layer()->pool().generations().size(), 4U);
}

TEST(RunConfig, RefusesHeadsAndReturnsThatCannotWork) {
  const auto refused = [](const std::function<void(RunConfig&)>& change, const char* word) {
    RunConfig config = small_config({"", [](RunConfig&) {}});
    change(config);
    expect_invalid(config, word);
  };
  EXPECT_NO_THROW(small_config({"", analytic_head}).validate());
  EXPECT_EQ(small_config({"", analytic_head}).gate(), GateKind::none);
  refused(
      [](RunConfig& c) {
        analytic_head(c);
        c.train.strategy = "naive";
        c.model.model = ModelKind::mlp;
      },
      "model peer");
  refused(
      [](RunConfig& c) {
        analytic_head(c);
        c.train.gate = GateChoice::analytic;
      },
      "no gate");
  refused(
      [](RunConfig& c) {
        analytic_head(c);
        c.train.epochs = 2;
      },
      "epochs 1");
  refused(
      [](RunConfig& c) {
        analytic_head(c);
        c.model.head_pool = 0;
      },
      "needs a pool");
  refused(
      [](RunConfig& c) {
        analytic_head(c);
        c.model.head_pool = c.model.head_filters = 0;
      },
      "both 0");
  refused(
      [](RunConfig& c) {
        analytic_head(c);
        c.model.peer.routing = Routing::shared;
      },
      "isolated routing");
  refused(
      [](RunConfig& c) {
        c.train.gate = GateChoice::oracle;
        c.train.return_novelty = 1.4;
      },
      "return_novelty");
}

}  // namespace
}  // namespace perennial::continual
