// SPDX-License-Identifier: Apache-2.0
// What holds for every strategy. A file that tests one brings its cases:
//   INSTANTIATE_TEST_SUITE_P(Ewc, StrategyTest, Values(StrategyCase{"ewc", "ewc", ...}),
//   case_name);
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <ostream>
#include <string>

#include "continual/strategies/strategy_driver.h"

namespace perennial::continual {

struct StrategyCase {
  std::string name;
  std::string strategy;
  std::function<void(RunConfig&)> change;  // before anything else
  std::function<void(RunConfig&)> zero;    // the strength that makes it naive; empty = it has none
};

// What a report of the tests shows, and what tells which strategies have a case.
inline void PrintTo(const StrategyCase& test_case, std::ostream* out) {
  *out << test_case.strategy;
}
inline std::string case_name(const ::testing::TestParamInfo<StrategyCase>& info) {
  return info.param.name;
}

inline void three_permutations(RunConfig& config) {
  config.stream.stream = StreamKind::permuted;
  config.stream.experiences = 3;
}
inline void on_peer(RunConfig& config) {
  config.model.model = ModelKind::peer;
  config.model.depth = 2;
}
inline void tasks(RunConfig& config) { config.stream.scenario = Scenario::task_incremental; }
inline void no_memory(RunConfig& config) { config.train.strategy_options.set("memory", 0); }

inline RunConfig config_of(const StrategyCase& test_case) {
  return mlp_config(StrategySet(test_case.strategy), [&](RunConfig& config) {
    config.train.epochs = 2;
    config.train.lr = 0.03;
    config.model.hidden = 32;
    config.train.strategy_options.set("ewc_strength", 50);
    if (test_case.change) test_case.change(config);
  });
}

class StrategyTest : public ::testing::TestWithParam<StrategyCase> {};

}  // namespace perennial::continual
