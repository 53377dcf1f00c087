// SPDX-License-Identifier: Apache-2.0
// Every strategy: stopping at any step and continuing changes no bit, strength 0 is naive bit for
// bit, and more than that is not.
#include "perennial/continual/strategy.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "continual/strategies/strategy_contract.h"
#include "perennial/core/dense_state.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

// What was learnt: every dense entry but those that tell of the run and of the strategy.
std::map<std::string, storage::Bytes> learnt(const storage::PageReader& store) {
  std::map<std::string, storage::Bytes> entries;
  for (const std::string& name : store.dense_names()) {
    if (name == "run" || name.starts_with("strategy/")) continue;
    entries[name] = *store.read_dense(name);
  }
  return entries;
}

TEST_P(StrategyTest, StoppedAndContinuedAtEveryStepEndsInTheSameState) {
  const RunConfig config = config_of(GetParam());
  const auto whole_store = storage::make_memory_store();
  const RunResult whole = run(config, whole_store.get());
  ASSERT_TRUE(whole.finished);
  const auto store = storage::make_memory_store();
  const RunResult last = learn_in_parts(
      [&](const auto& stop) { return run(config, store.get(), stop); }, one_to_three, 5);
  expect_same_end(last, whole);
}

TEST_P(StrategyTest, StrengthZeroIsNaiveBitForBitAndMoreIsNot) {
  const RunConfig config = config_of(GetParam());
  RunConfig naive = config, zero = config;
  naive.train.strategy =
      config.train.strategy.has("grow_freeze") ? StrategySet("grow_freeze") : StrategySet("naive");
  const auto store = storage::make_memory_store(), naive_store = storage::make_memory_store(),
             zero_store = storage::make_memory_store();
  naive.train.strategy_options.set("output_regularisation", 0);
  naive.train.gate = GateChoice::automatic;
  run(config, store.get());
  run(naive, naive_store.get());
  EXPECT_NE(learnt(*store), learnt(*naive_store));
  if (!GetParam().zero) return;
  GetParam().zero(zero);
  run(zero, zero_store.get());
  EXPECT_EQ(learnt(*zero_store), learnt(*naive_store));
}

TEST_P(StrategyTest, WhatWasLearntEvaluatesAsTheLastRow) {
  const RunConfig config = config_of(GetParam());
  const auto store = storage::make_memory_store();
  const RunResult result = run(config, store.get());
  expect_answers_of(result, *store, make_stream(config));
}

TEST_P(StrategyTest, LearnsTheFirstExperience) {
  RunConfig config = config_of(GetParam());
  config.train.epochs = 8;
  const RunResult result = run(config, nullptr);
  EXPECT_GT(result.matrix.at(1, 0), 0.6);
  EXPECT_GT(result.matrix.at(1, 0), result.matrix.at(0, 0) + 0.1);
}

const std::vector<StrategyCase>& cases() {
  static const std::vector<StrategyCase> all = {
      StrategyCase{"cumulative", "cumulative", {}, {}},
      StrategyCase{
          "l2", "l2", {}, [](RunConfig& c) { c.train.strategy_options.set("l2_strength", 0); }},
      StrategyCase{"ewc_sample",
                   "ewc",
                   {},
                   [](RunConfig& c) { c.train.strategy_options.set("ewc_strength", 0); }},
      StrategyCase{"ewc_exact_permuted", "ewc",
                   [](RunConfig& c) {
                     three_permutations(c);
                     c.train.strategy_options.set("fisher", "exact");
                     c.train.strategy_options.set("fisher_examples", 40);
                   },
                   [](RunConfig& c) { c.train.strategy_options.set("ewc_strength", 0); }},
      StrategyCase{"online_ewc", "online_ewc",
                   [](RunConfig& c) {
                     three_permutations(c);
                     c.train.strategy_options.set("ewc_gamma", 0.9);
                     c.train.strategy_options.set("fisher", "batched");
                   },
                   [](RunConfig& c) { c.train.strategy_options.set("online_ewc_strength", 0); }},
      StrategyCase{"si", "si", [](RunConfig& c) { c.train.strategy_options.set("si_strength", 5); },
                   [](RunConfig& c) { c.train.strategy_options.set("si_strength", 0); }},
      StrategyCase{"mas", "mas",
                   [](RunConfig& c) { c.train.strategy_options.set("mas_strength", 0.05); },
                   [](RunConfig& c) { c.train.strategy_options.set("mas_strength", 0); }},
      StrategyCase{"lwf", "lwf", three_permutations,
                   [](RunConfig& c) { c.train.strategy_options.set("lwf_strength", 0); }},
      StrategyCase{"ewc_tasks", "ewc", tasks,
                   [](RunConfig& c) { c.train.strategy_options.set("ewc_strength", 0); }},
      StrategyCase{"online_ewc_tasks_batched", "online_ewc",
                   [](RunConfig& c) {
                     tasks(c);
                     three_permutations(c);
                     c.train.strategy_options.set("fisher", "batched");
                   },
                   [](RunConfig& c) { c.train.strategy_options.set("online_ewc_strength", 0); }},
      StrategyCase{"mas_tasks", "mas", tasks,
                   [](RunConfig& c) { c.train.strategy_options.set("mas_strength", 0); }},
      StrategyCase{"lwf_tasks", "lwf",
                   [](RunConfig& c) {
                     tasks(c);
                     three_permutations(c);
                   },
                   [](RunConfig& c) { c.train.strategy_options.set("lwf_strength", 0); }},
      StrategyCase{"er", "er", {}, no_memory},
      StrategyCase{"er_class_balanced", "er",
                   [](RunConfig& c) { c.train.strategy_options.set("buffer", "class_balanced"); },
                   no_memory},
      StrategyCase{"er_ring", "er",
                   [](RunConfig& c) { c.train.strategy_options.set("buffer", "ring"); }, no_memory},
      StrategyCase{"er_greedy", "er",
                   [](RunConfig& c) { c.train.strategy_options.set("buffer", "greedy"); },
                   no_memory},
      StrategyCase{"er_filled_after", "er",
                   [](RunConfig& c) { c.train.strategy_options.set("memory_fill", "experience"); },
                   no_memory},
      StrategyCase{"er_dropout", "er", [](RunConfig& c) { c.model.dropout = 0.2; }, no_memory},
      StrategyCase{"er_peer", "er", on_peer, no_memory},
      StrategyCase{"er_ace", "er_ace", {}, no_memory},
      StrategyCase{"der", "der",
                   [](RunConfig& c) { c.train.strategy_options.set("der_alpha", 0.5); },
                   [](RunConfig& c) { c.train.strategy_options.set("der_alpha", 0); }},
      StrategyCase{"derpp",
                   "der++",
                   {},
                   [](RunConfig& c) {
                     c.train.strategy_options.set("der_alpha", 0);
                     c.train.strategy_options.set("der_beta", 0);
                   }},
      StrategyCase{"derpp_filled_after", "der++",
                   [](RunConfig& c) {
                     c.train.strategy_options.set("memory_fill", "experience");
                     c.model.dropout = 0.2;
                   },
                   no_memory},
      StrategyCase{"derpp_peer", "der++", on_peer, no_memory},
      StrategyCase{
          "gem", "gem", {}, [](RunConfig& c) { c.train.strategy_options.set("task_memory", 0); }},
      StrategyCase{
          "agem", "agem", {}, [](RunConfig& c) { c.train.strategy_options.set("task_memory", 0); }},
      StrategyCase{"gdumb",
                   "gdumb",
                   [](RunConfig& c) { c.train.strategy_options.set("gdumb_epochs", 30); },
                   {}},
      StrategyCase{"sparse_slot", "sparse_slot",
                   [](RunConfig& c) {
                     on_peer(c);
                     three_permutations(c);
                     c.train.strategy_options.set("update_slots", 10);
                     c.train.lr = 0.05;
                   },
                   [](RunConfig& c) { c.train.strategy_options.set("update_slots", 0); }},
      StrategyCase{"icarl", "icarl", {}, {}},
      StrategyCase{"packnet", "packnet", tasks, {}},
      StrategyCase{"progressive", "progressive", tasks, {}},
      StrategyCase{"progressive_dropout",
                   "progressive",
                   [](RunConfig& c) {
                     tasks(c);
                     c.model.dropout = 0.2;
                   },
                   {}},
      StrategyCase{"er_and_ewc",
                   "er+ewc",
                   {},
                   [](RunConfig& c) {
                     no_memory(c);
                     c.train.strategy_options.set("ewc_strength", 0);
                   }},
      StrategyCase{"grow_freeze_output_regularisation", "grow_freeze",
                   [](RunConfig& c) {
                     on_peer(c);
                     three_permutations(c);
                     c.model.peer.routing = Routing::shared;
                     c.train.strategy_options.set("output_regularisation", 1);
                   },
                   [](RunConfig& c) { c.train.strategy_options.set("output_regularisation", 0); }},
      StrategyCase{"grow_freeze_autoencoder_gate",
                   "grow_freeze",
                   [](RunConfig& c) {
                     on_peer(c);
                     three_permutations(c);
                     c.train.gate = GateChoice::autoencoder;
                     c.train.autoencoder_options.autoencoder_code = 4;
                   },
                   {}},
      StrategyCase{"grow_freeze_and_er", "grow_freeze+er", on_peer, no_memory},
      StrategyCase{"grow_freeze_and_lwf", "grow_freeze+lwf", on_peer,
                   [](RunConfig& c) { c.train.strategy_options.set("lwf_strength", 0); }},
  };
  return all;
}

INSTANTIATE_TEST_SUITE_P(Strategies, StrategyTest, ::testing::ValuesIn(cases()), case_name);

TEST(Strategy, EveryOneHasACase) {
  // What the others are compared with, and what has no first experience: trainer_test.cc.
  std::set<std::string> tested = {"naive", "joint"};
  const ::testing::UnitTest& all = *::testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const ::testing::TestSuite& suite = *all.GetTestSuite(i);
    if (!std::string_view(suite.name()).ends_with("/StrategyTest")) continue;
    for (int j = 0; j < suite.total_test_count(); ++j) {
      const StrategySet set(suite.GetTestInfo(j)->value_param());
      for (const StrategyDeclaration* part : set.parts()) tested.emplace(part->name);
    }
  }
  for (const StrategyDeclaration* declaration : all_strategies()) {
    EXPECT_TRUE(tested.contains(std::string(declaration->name))) << declaration->name;
    EXPECT_FALSE(declaration->description.empty());
  }
}

TEST(Strategy, UnchangedStateIsNotCommittedAgain) {
  // The anchor and the importances of EWC change at boundaries only.
  const RunConfig config = mlp_config("ewc", [](RunConfig& c) {
    c.model.hidden = 200;
    c.train.commit_every = 1;
  });
  const auto store = storage::make_memory_store();
  run(config, store.get());
  const std::uint64_t parameters = store->read_dense("strategy/ewc/anchor")->size();
  std::uint64_t smallest = ~std::uint64_t{0};
  for (const storage::CommitInfo& info : store->log()) {
    smallest = std::min<std::uint64_t>(smallest, info.bytes_written);
  }
  EXPECT_GT(parameters, 40000U * 4U);
  // Weights and two moments change with every step.
  EXPECT_LT(smallest, 4 * parameters);
}

TEST(Strategy, SparseSlotsAreThoseOfTheLargestTfIdf) {
  RunConfig config = small_config({"", [](RunConfig&) {}});
  config.train.strategy = "sparse_slot";
  config.train.strategy_options.set("update_slots", 5);
  config.train.gate = GateChoice::none;
  Driver driver(config);
  PeerImpl& peer = *driver.model->only_layer();
  // Of a step: the rows, and the gradient that the strategy is asked about.
  const auto step = [&](std::int64_t experience, std::int64_t number) {
    StrategyContext now = driver.context(experience);
    const Batch batch = driver.stream.train_batch(experience, 0, number, 16, 1);
    TrainingBatch rows{batch.x, batch.y, 16};
    driver.strategy->before_step(now, rows);
    rows.outputs = driver.model->train_forward(rows.x);
    step_loss(*driver.strategy, now, rows).backward();
    driver.strategy->after_backward(now, rows);
    CompactGradient gradient = peer.pool().compact_gradient();
    gradient.ids = gradient.ids.clone();
    gradient.values = gradient.values.clone();
    peer.pool().clear_gradients();
    return std::pair{rows, std::vector<CompactGradient>{gradient}};
  };
  const auto ids_of = [](const CompactGradient& gradient) {
    const std::int64_t* ids = gradient.ids.const_data_ptr<std::int64_t>();
    return std::vector<std::int64_t>(ids, ids + gradient.ids.numel());
  };
  std::map<std::int64_t, double> batches_with;
  StrategyContext first = driver.context(0), second = driver.context(1);
  driver.strategy->before_experience(first);
  for (std::int64_t number = 0; number < 4; ++number) {
    auto [rows, gradients] = step(0, number);
    CompactGradient& gradient = gradients.front();
    for (const std::int64_t id : ids_of(gradient)) batches_with[id] += 1;
    const torch::Tensor all = gradient.ids;
    driver.strategy->after_expert_backward(first, rows, gradients);
    EXPECT_TRUE(torch::equal(gradient.ids, all)) << "the first experience trains everything";
  }
  driver.strategy->after_experience(first);
  driver.strategy->before_experience(second);
  auto [rows, gradients] = step(1, 0);
  CompactGradient& gradient = gradients.front();
  // How often the rows retrieved each expert: what their gradient is of.
  const torch::Tensor retrieved = peer.retrieve(rows.x, 0).ids.flatten();
  std::map<std::int64_t, double> uses;
  for (std::int64_t i = 0; i < retrieved.numel(); ++i) ++uses[retrieved[i].item<std::int64_t>()];
  std::vector<std::int64_t> ids;
  std::vector<std::pair<double, std::int64_t>> ranks;
  for (const auto& [id, count] : uses) {
    ids.push_back(id);
    ranks.emplace_back(-count * std::log(5 / (batches_with[id] + 1)), id);
  }
  EXPECT_EQ(ids_of(gradient), ids) << "counted by another retrieval than trained by";
  ASSERT_GT(ids.size(), 10U);
  std::sort(ranks.begin(), ranks.end());
  std::set<std::int64_t> expected;
  for (std::size_t i = 0; i < 5; ++i) expected.insert(ranks[i].second);
  gradient.values = gradient.ids.to(at::kFloat).view({-1, 1}).expand({-1, 3});
  driver.strategy->after_expert_backward(second, rows, gradients);
  const std::vector<std::int64_t> kept = ids_of(gradient);
  EXPECT_EQ(std::set<std::int64_t>(kept.begin(), kept.end()), expected);
  EXPECT_TRUE(torch::equal(gradient.values.select(1, 1), gradient.ids.to(at::kFloat)));
}

}  // namespace
}  // namespace perennial::continual
