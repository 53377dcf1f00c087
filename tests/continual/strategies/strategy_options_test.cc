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
  const auto text = [](const char* names) { return StrategySet(names).text(); };
  EXPECT_EQ(text("naive"), "naive");
  EXPECT_EQ(text("der++"), "der++");
  EXPECT_EQ(text("er+grow_freeze"), "grow_freeze+er");
  EXPECT_EQ(text("der+++grow_freeze"), "grow_freeze+der++");
  EXPECT_EQ(text("grow_freeze+der++"), "grow_freeze+der++");
  EXPECT_EQ(text("grow_freeze+lwf+der"), "grow_freeze+lwf+der");
  EXPECT_TRUE(StrategySet("er") == "er");
  EXPECT_FALSE(StrategySet("er+lwf") == "er");
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
  RunConfig config = mlp_config("naive");
  config.train.strategy = StrategySet("lwf+er");
  config.train.strategy_options.set("buffer", "ring");
  const RunConfig back = RunConfig::from_json(config.to_json());
  EXPECT_EQ(back.train.strategy, config.train.strategy);
  EXPECT_EQ(back.train.strategy_options.get("buffer"), "ring");
  EXPECT_TRUE(differences(back, config).empty());
}

TEST(Strategy, WhatCannotReachAPoolIsRefused) {
  for (const char* name : {"l2", "ewc", "online_ewc", "si", "mas", "lwf", "gem", "agem", "gdumb",
                           "icarl", "packnet", "progressive", "grow_freeze+ewc"}) {
    RunConfig config = mlp_config("naive");
    config.model.model = ModelKind::peer;
    config.train.strategy = StrategySet(name);
    SCOPED_TRACE(name);
    expect_invalid(config, "use ");
  }
  for (const char* name : {"grow_freeze+er", "sparse_slot"}) {
    RunConfig config = mlp_config("naive");
    config.train.strategy = StrategySet(name);
    EXPECT_THROW(config.validate(), InvalidOptions) << name;  // model mlp
  }
}

TEST(Strategy, WhatMustBeToldTheExperienceIsRefusedWhereItIsNot) {
  for (const char* kind : {"packnet", "progressive"}) {
    RunConfig config =
        mlp_config("naive", [](RunConfig& c) { c.stream.scenario = Scenario::task_incremental; });
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
  RunConfig config =
      mlp_config("packnet", [](RunConfig& c) { c.stream.scenario = Scenario::task_incremental; });
  config.model.depth = 0;
  expect_invalid(config, "depth is 0");
}

TEST(Strategy, WhatGrowthCannotDistilOrAskIsRefused) {
  const auto refused = [](const std::function<void(RunConfig&)>& change, const char* word) {
    expect_invalid(small_config({"", change}), word);
  };
  const auto regularised = [](RunConfig& c) {
    c.train.strategy_options.set("output_regularisation", 1);
  };
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
  RunConfig config = mlp_config("er");
  config.train.strategy_options.set("buffer", "ring");
  config.train.strategy_options.set("memory", kClasses - 1);
  const auto store = storage::make_memory_store();
  EXPECT_THROW(run(config, store.get()), InvalidOptions);
  EXPECT_FALSE(store->head().ok());
}

TEST(Strategy, OptionsAreThoseThatStrategiesDeclare) {
  std::set<std::string> used;
  for (const StrategyDeclaration* declaration : all_strategies()) {
    for (const std::string& option : StrategySet(declaration->name).options()) used.insert(option);
  }
  const std::vector<std::string> known = option_names<StrategyOptions>();
  EXPECT_EQ(used, std::set<std::string>(known.begin(), known.end()));
  EXPECT_EQ(used.size(), known.size());  // each once
}

TEST(Strategy, OptionsAreSetByName) {
  StrategyOptions options;
  EXPECT_EQ(options.get("ewc_strength"), 1200.0);
  options.set("ewc_strength", 3);
  options.set("growth", "drift");
  const StrategyOptions copy = options;
  options.set("ewc_strength", 4);
  EXPECT_EQ(copy.get("ewc_strength"), 3.0);
  EXPECT_EQ(copy.get("growth"), "drift");
  const auto refused = [&](const char* name, const boost::json::value& value) {
    try {
      options.set(name, value);
    } catch (const InvalidOptions& error) {
      return std::string(error.what());
    }
    return std::string("not refused");
  };
  EXPECT_THAT(refused("ewc_strenght", 3), ::testing::HasSubstr("'ewc_strength'"));
  EXPECT_THAT(refused("ewc_strength", "much"), ::testing::HasSubstr("must be a number"));
  EXPECT_THAT(refused("memory", 2.5), ::testing::HasSubstr("must be an integer"));
  EXPECT_THAT(refused("growth", "drft"), ::testing::HasSubstr("'drift'"));
}

TEST(Strategy, WhatARunWouldNotLookAtIsNamed) {
  RunConfig config = mlp_config("er");
  const auto needs = [&](const std::string& name) {
    for (const UnreadOptions& unread : config.unread()) {
      if (std::ranges::find(unread.names, name) != unread.names.end()) return unread.needs;
    }
    return std::string();
  };
  EXPECT_EQ(needs("memory"), "");
  EXPECT_EQ(needs("hidden"), "");
  EXPECT_EQ(needs("dropout"), "");
  EXPECT_THAT(needs("ewc_strength"), ::testing::HasSubstr("this run has er"));
  EXPECT_THAT(needs("heads"), ::testing::HasSubstr("the model is mlp"));
  EXPECT_THAT(needs("ridge"), ::testing::HasSubstr("analytic gate"));
  EXPECT_EQ(needs("strategy_seed"), "");
  config = small_config({"", [](RunConfig&) {}});
  EXPECT_THAT(needs("drift_steps"), ::testing::HasSubstr("--growth drift"));
  EXPECT_EQ(needs("return_examples"), "");
  config.train.strategy_options.set("growth", "drift");
  EXPECT_EQ(needs("drift_steps"), "");
  EXPECT_THAT(needs("return_examples"), ::testing::HasSubstr("--growth experience"));
}

}  // namespace
}  // namespace perennial::continual
