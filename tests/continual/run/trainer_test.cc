// SPDX-License-Identifier: Apache-2.0
// The trainer over a memory store: stopping at any step and continuing changes no bit, for every
// strategy, model and optimizer; what cannot work is refused before anything is written.
#include "perennial/continual/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <boost/json/serialize.hpp>
#include <functional>

#include "continual/run/trainer_testing.h"
#include "perennial/core/sparse_optimizer.h"
#include "perennial/kernels/philox.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

class TrainerTest : public ::testing::TestWithParam<Case> {};

TEST_P(TrainerTest, StoppedAndContinuedAtEveryStepEndsInTheSameState) {
  const RunConfig config = small_config(GetParam());
  const auto whole_store = storage::make_memory_store();
  const RunResult whole = run(config, whole_store.get());
  ASSERT_TRUE(whole.finished);

  // One trainer a step or two: each stop commits, and the next trainer loads what the last one
  // left.
  const auto store = storage::make_memory_store();
  const RunResult last = learn_in_parts(
      [&](const auto& stop) { return run(config, store.get(), stop); }, one_to_three, 5);
  expect_same_end(last, whole);
}

TEST_P(TrainerTest, LearnsSomething) {
  const RunConfig config = small_config(GetParam());
  const RunResult result = run(config, nullptr);
  const std::int64_t last = result.matrix.experiences();
  EXPECT_GT(result.matrix.at(last, last - 1), result.matrix.at(0, last - 1) + 0.2);
}

TEST_P(TrainerTest, WhatWasLearntEvaluatesAsTheLastRow) {
  const RunConfig config = small_config(GetParam());
  const auto store = storage::make_memory_store();
  const RunResult result = run(config, store.get());
  expect_answers_of(result, *store, make_stream(config));
}

TEST_P(TrainerTest, RestoredToAnEarlierExperienceItLearnsTheSameAgain) {
  const RunConfig config = small_config(GetParam());
  if (config.train.strategy == "joint") return;  // it has one boundary, the end
  const auto store = storage::make_memory_store();
  const RunResult first = run(config, store.get());
  ASSERT_TRUE(store->restore({.commit = *store->resolve("experience-1")}).ok());
  const RunResult again = run(config, store.get());
  EXPECT_TRUE(again.finished);
  EXPECT_EQ(matrix_of(again), matrix_of(first));
  EXPECT_EQ(again.state_digest, first.state_digest);
  EXPECT_TRUE(store->resolve("experience-3-2").ok());
}

INSTANTIATE_TEST_SUITE_P(
    Runs, TrainerTest,
    ::testing::Values(
        Case{"grow_freeze", [](RunConfig&) {}},
        Case{"grow_freeze_two_epochs", [](RunConfig& c) { c.train.epochs = 2; }},
        Case{"grow_freeze_oracle", [](RunConfig& c) { c.train.gate = GateChoice::oracle; }},
        Case{"grow_freeze_shared", [](RunConfig& c) { c.model.peer.routing = Routing::shared; }},
        Case{"grow_freeze_shared_trunk",
             [](RunConfig& c) {
               c.model.peer.routing = Routing::shared;
               c.model.peer.query_norm = QueryNorm::rms;
               c.model.width = 8;
             }},
        Case{"grow_freeze_sgd",
             [](RunConfig& c) {
               c.train.optimizer = OptimizerKind::sgd;
               c.train.lr = 0.5;
             }},
        Case{"grow_freeze_expert_momentum",
             [](RunConfig& c) {
               c.train.expert_optimizer = ExpertOptimizer::sgd;
               c.train.expert_lr = 0.1;
               c.train.expert_momentum = 0.9;
             }},
        Case{"grow_freeze_expert_adagrad",
             [](RunConfig& c) {
               c.train.expert_optimizer = ExpertOptimizer::rowwise_adagrad;
               c.train.expert_lr = 0.05;
               c.train.expert_weight_decay = 0.001;
             }},
        Case{"naive_peer", [](RunConfig& c) { c.train.strategy = "naive"; }},
        Case{"naive_mlp",
             [](RunConfig& c) {
               c.train.strategy = "naive";
               c.model.model = ModelKind::mlp;
             }},
        Case{"joint_peer", [](RunConfig& c) { c.train.strategy = "joint"; }},
        Case{"joint_mlp_sgd",
             [](RunConfig& c) {
               c.train.strategy = "joint";
               c.model.model = ModelKind::mlp;
               c.train.optimizer = OptimizerKind::sgd;
               c.train.lr = 0.2;
             }}),
    [](const auto& info) { return info.param.name; });

TEST(Trainer, TheBudgetChangesNoBit) {
  RunConfig config = small_config(kPlain);
  config.train.strategy = "naive";
  config.model.peer.rows = 40;
  const auto whole_store = storage::make_memory_store(), store = storage::make_memory_store();
  const RunResult whole = run(config, whole_store.get());
  // Six pages of weights and six of optimizer state; a page holds four experts of 16 floats.
  const std::int64_t weights = 4 * 16 * 4, state = 4 * (2 * 16 + 16) * 4;
  const std::int64_t budget = 6 * (weights + state);
  EXPECT_THROW(run(config, storage::make_memory_store().get(), {}, budget - 1), InvalidOptions);
  const RunResult paged = run(config, store.get(), {}, budget);
  EXPECT_EQ(paged.state_digest, whole.state_digest);
  EXPECT_EQ(matrix_of(paged), matrix_of(whole));
  EXPECT_GE(whole.pager->peak_bytes, 8 * static_cast<std::uint64_t>(budget));
  EXPECT_LE(paged.pager->peak_bytes, static_cast<std::uint64_t>(budget));
  EXPECT_GT(paged.pager->evicted, 0U);
  EXPECT_GT(paged.pager->spilled, 0U);
  EXPECT_GT(paged.pager->unspilled, 0U);
}

TEST(Trainer, AnotherConfigurationIsRefusedAndNamed) {
  RunConfig config = small_config(kPlain);
  const auto store = storage::make_memory_store();
  run(config, store.get(), [] { return true; });
  const std::size_t commits = store->log().size();
  config.train.lr = 0.02;
  config.model.peer.top_k = 4;
  try {
    run(config, store.get());
    FAIL() << "accepted";
  } catch (const InvalidOptions& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("train.lr: 1E-2 stored, 2E-2 asked for"));
    EXPECT_THAT(error.what(), ::testing::HasSubstr("model.top_k"));
  }
  EXPECT_EQ(store->log().size(), commits);
}

TEST(Trainer, OtherDataIsRefused) {
  const RunConfig config = small_config(kPlain);
  const auto store = storage::make_memory_store();
  run(config, store.get(), [] { return true; });
  const Stream other(config.stream, TrainTest{make_data(100, 7), make_data(40, 9), "other"});
  EXPECT_THROW(Trainer(config, other, store.get(), {}), DataError);
  EXPECT_THROW(require_same_data(load_learnt(*store, 0), other), DataError);
}

TEST(Trainer, ALastBatchOfOneIsRefusedWithBatchNorm) {
  RunConfig config = small_config(kPlain);
  config.train.batch = 33;  // 100 = 3 * 33 + 1
  const auto store = storage::make_memory_store();
  EXPECT_THROW(run(config, store.get()), InvalidOptions);
  EXPECT_FALSE(store->head().ok());
  config.model.peer.query_norm = QueryNorm::rms;
  EXPECT_TRUE(run(config, store.get()).finished);
}

TEST(Trainer, AFinishedRunReturnsItsResultAtOnce) {
  const RunConfig config = small_config(kPlain);
  const auto store = storage::make_memory_store();
  const RunResult first = run(config, store.get());
  const std::size_t commits = store->log().size();
  const RunResult again = run(config, store.get());
  EXPECT_TRUE(again.finished);
  EXPECT_EQ(again.state_digest, first.state_digest);
  EXPECT_EQ(matrix_of(again), matrix_of(first));
  EXPECT_EQ(store->log().size(), commits);
}

TEST(Trainer, IsolatedGenerationsAnswerTheSameFromTheirFreezeOn) {
  RunConfig config = small_config(kPlain);
  config.train.gate = GateChoice::oracle;
  const RunResult result = run(config, nullptr);
  for (std::int64_t j = 0; j < 3; ++j) {
    for (std::int64_t i = j + 2; i <= 3; ++i) {
      EXPECT_EQ(result.matrix.at(i, j), result.matrix.at(j + 1, j)) << i << ", " << j;
    }
  }
}

TEST(Trainer, ExpertsGrownByHandDoNotAnswerBeforeTheyTrained) {
  for (const char* strategy : {"naive", "grow_freeze"}) {
    RunConfig config = small_config(kPlain);
    config.train.strategy = strategy;
    const auto store = storage::make_memory_store();
    const RunResult result = run(config, store.get());
    {
      LearntModel learnt = load_learnt(*store, 0);
      PeerImpl& peer = *learnt.model->only_layer();
      if (peer.pool().open_generation()) peer.freeze();
      peer.grow(64, 6);
      if (learnt.model->gate() != nullptr) learnt.model->gate()->add_generation();
      const storage::CommitInfo info = commit_model(*store, *learnt.model, "grow", "wider");
      EXPECT_EQ(info.pages_written, 0U);
    }
    expect_answers_of(result, *store, make_stream(config));
  }
}

// Experiences that were not learnt have no generation that the gate could find.
TEST(Trainer, GateAccuracyIsOfWhatWasLearnt) {
  const RunConfig config = small_config(kPlain);
  const auto store = storage::make_memory_store();
  int polls = 0;
  const RunResult untrained = run(config, store.get(), [&] { return ++polls >= 2; });
  EXPECT_FALSE(untrained.gate_accuracy);
  polls = 0;
  const RunResult one = run(config, store.get(), [&] { return ++polls >= 9; });
  ASSERT_TRUE(one.matrix.has_row(1));
  ASSERT_FALSE(one.matrix.has_row(2));
  EXPECT_EQ(one.gate_accuracy, 1) << "of one generation";
  const LearntModel learnt = load_learnt(*store, 0);
  EXPECT_EQ(learnt.experiences, 1);
  EXPECT_FALSE(evaluate(*learnt.model, make_stream(config), false, {}, 0).gate_accuracy);
  run(config, store.get());
  EXPECT_EQ(load_learnt(*store, 0).experiences, 3);
}

TEST(RunConfig, RefusesCombinationsThatCannotWork) {
  const auto refused = [](const std::function<void(RunConfig&)>& change, const char* word) {
    RunConfig config = small_config(kPlain);
    change(config);
    expect_invalid(config, word);
  };
  EXPECT_NO_THROW(small_config(kPlain).validate());
  refused([](RunConfig& c) { c.model.model = ModelKind::mlp; }, "pool");
  refused([](RunConfig& c) { c.model.width = 8; }, "width");
  refused([](RunConfig& c) { c.train.expert_momentum = 0.9; }, "only sgd has momentum");
  refused(
      [](RunConfig& c) {
        c.train.strategy = "naive";
        c.train.gate = GateChoice::analytic;
      },
      "gate");
  refused([](RunConfig& c) { c.model.peer.d_key = 7; }, "d_key");
  refused([](RunConfig& c) { c.model.peer.top_k = 37; }, "top_k");
  refused([](RunConfig& c) { c.train.batch = 1; }, "batch");
  refused([](RunConfig& c) { c.train.lr = -1; }, "lr");
}

TEST(RunConfig, SurvivesJson) {
  RunConfig config = small_config(kPlain);
  config.train.lr = 0.1 + 0.2;  // a double that Boost.JSON does not always read back
  config.stream.dataset = "somewhere/else";
  const RunConfig back = RunConfig::from_json(config.to_json());
  EXPECT_EQ(back.train.lr, config.train.lr);
  EXPECT_EQ(boost::json::serialize(back.to_json()), boost::json::serialize(config.to_json()));
  EXPECT_TRUE(differences(back, config).empty());
}

}  // namespace
}  // namespace perennial::continual
