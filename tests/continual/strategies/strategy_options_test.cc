// SPDX-License-Identifier: Apache-2.0
// Which strategies compose, which options they have, and what cannot work is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "continual/strategies/strategy_driver.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

TEST(StrategySet, NamesComposeWhereThatMakesSense) {
  const auto text = [](const char* names) { return StrategySet::parse("strategy", names).text(); };
  EXPECT_EQ(text("naive"), "naive");
  EXPECT_EQ(text("der++"), "der++");
  EXPECT_EQ(text("er+grow_freeze"), "grow_freeze+er");
  EXPECT_EQ(text("der+++grow_freeze"), "grow_freeze+der++");
  EXPECT_EQ(text("grow_freeze+der++"), "grow_freeze+der++");
  EXPECT_EQ(text("grow_freeze+lwf+der"), "grow_freeze+lwf+der");
  EXPECT_TRUE(StrategySet::parse("strategy", "er") == StrategyKind::er);
  EXPECT_FALSE(StrategySet::parse("strategy", "er+lwf") == StrategyKind::er);
  const auto refused = [&](const char* names, const char* word) {
    try {
      text(names);
      ADD_FAILURE() << "accepted: " << names;
    } catch (const InvalidOptions& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr(word));
    }
  };
  refused("ewd", "ewc");
  refused("", "strategy");
  refused("er+", "strategy");
  refused("er+er", "twice");
  refused("er+der", "one sort");
  refused("ewc+si", "one sort");
  refused("naive+er", "naive does not compose");
  refused("grow_freeze+joint", "joint does not compose");
  refused("er+gem", "gem does not compose");
}

TEST(StrategySet, IsStoredAsItsText) {
  RunConfig config = mlp_config(StrategyKind::naive);
  config.train.strategy = StrategySet::parse("strategy", "lwf+er");
  config.train.strategy_options.buffer = BufferKind::ring;
  const RunConfig back = RunConfig::from_json(config.to_json());
  EXPECT_EQ(back.train.strategy, config.train.strategy);
  EXPECT_EQ(back.train.strategy_options.buffer, BufferKind::ring);
  EXPECT_TRUE(differences(back, config).empty());
}

TEST(Strategy, WhatCannotReachAPoolIsRefused) {
  for (const char* name : {"l2", "ewc", "online_ewc", "si", "mas", "lwf", "gem", "agem", "gdumb",
                           "icarl", "packnet", "progressive", "grow_freeze+ewc"}) {
    RunConfig config = mlp_config(StrategyKind::naive);
    config.model.model = ModelKind::peer;
    config.train.strategy = StrategySet::parse("strategy", name);
    SCOPED_TRACE(name);
    expect_invalid(config, "use ");
  }
  for (const char* name : {"grow_freeze+er", "sparse_slot"}) {
    RunConfig config = mlp_config(StrategyKind::naive);
    config.train.strategy = StrategySet::parse("strategy", name);
    EXPECT_THROW(config.validate(), InvalidOptions) << name;  // model mlp
  }
}

TEST(Strategy, WhatMustBeToldTheExperienceIsRefusedWhereItIsNot) {
  for (const StrategyKind kind : {StrategyKind::packnet, StrategyKind::progressive}) {
    RunConfig config = mlp_config(
        StrategyKind::naive, [](RunConfig& c) { c.stream.scenario = Scenario::task_incremental; });
    config.train.strategy = kind;
    EXPECT_NO_THROW(config.validate());
    EXPECT_EQ(config.gate(), GateKind::oracle);
    config.train.gate = GateChoice::none;
    EXPECT_THROW(config.validate(), InvalidOptions);
    config.stream.scenario = Scenario::class_incremental;
    config.train.gate = GateChoice::automatic;
    expect_invalid(config, "gate oracle");
    config.train.gate = GateChoice::oracle;
    EXPECT_NO_THROW(config.validate());
  }
}

TEST(Strategy, WeightsToDivideAreThoseOfHiddenLayers) {
  RunConfig config = mlp_config(
      StrategyKind::packnet, [](RunConfig& c) { c.stream.scenario = Scenario::task_incremental; });
  config.model.depth = 0;
  expect_invalid(config, "depth is 0");
}

TEST(Strategy, WhatGrowthCannotDistilOrAskIsRefused) {
  const auto refused = [](const std::function<void(RunConfig&)>& change, const char* word) {
    expect_invalid(small_config({"", change}), word);
  };
  const auto regularised = [](RunConfig& c) { c.train.strategy_options.output_regularisation = 1; };
  refused(regularised, "shared routing");
  refused(
      [&](RunConfig& c) {
        regularised(c);
        c.model.peer.routing = Routing::shared;
        c.model.width = 8;
      },
      "width 0");
  refused(
      [](RunConfig& c) {
        c.train.gate = GateChoice::autoencoder;
        c.train.gate_options.head_weight = 1;
      },
      "head_weight");
  refused(
      [](RunConfig& c) {
        c.train.gate = GateChoice::autoencoder;
        c.train.return_novelty = 1;
      },
      "return_novelty");
}

TEST(Strategy, ARingOfLessThanOneAClassIsRefused) {
  RunConfig config = mlp_config(StrategyKind::er);
  config.train.strategy_options.buffer = BufferKind::ring;
  config.train.strategy_options.memory = kClasses - 1;
  const auto store = storage::make_memory_store();
  EXPECT_THROW(run(config, store.get()), InvalidOptions);
  EXPECT_FALSE(store->head().ok());
}

TEST(Strategy, OptionsThatAStrategyReadsExist) {
  std::set<std::string> known;
  StrategyOptions options;
  auto collect = [&](std::string_view name, auto&, std::string_view, auto...) {
    known.emplace(name);
  };
  StrategyOptions::visit(options, collect);
  std::set<std::string> used;
  for (const auto& [kind, name] : enum_names(StrategyKind{})) {
    for (const std::string& option : options_of(kind)) {
      EXPECT_TRUE(known.contains(option)) << option;
      used.insert(option);
    }
  }
  EXPECT_EQ(used, known);
}

}  // namespace
}  // namespace perennial::continual
