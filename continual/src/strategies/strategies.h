// SPDX-License-Identifier: Apache-2.0
// The list of strategies: a name here, and a file that defines strategies::NAME().
#pragma once

#include <memory>
#include <type_traits>

#include "perennial/continual/run_config.h"
#include "perennial/continual/strategy.h"
#include "perennial/continual/strategy_declaration.h"

namespace perennial::continual {

using StrategyPointer = std::unique_ptr<Strategy>;

// Makes one of what its constructor asks for.
template <class S>
StrategyPointer make_one(const RunConfig& config, const StreamShape& shape) {
  if constexpr (std::is_constructible_v<S, const RunConfig&, const StreamShape&>) {
    return std::make_unique<S>(config, shape);
  } else if constexpr (std::is_constructible_v<S, const StrategyOptions&>) {
    return std::make_unique<S>(config.train.strategy_options);
  } else {
    return std::make_unique<S>();
  }
}

// In the order of help, and of the hooks of strategies that work together.
#define PERENNIAL_STRATEGIES(STRATEGY) \
  STRATEGY(naive)                      \
  STRATEGY(joint)                      \
  STRATEGY(cumulative)                 \
  STRATEGY(grow_freeze)                \
  STRATEGY(l2)                         \
  STRATEGY(ewc)                        \
  STRATEGY(online_ewc)                 \
  STRATEGY(si)                         \
  STRATEGY(mas)                        \
  STRATEGY(lwf)                        \
  STRATEGY(er)                         \
  STRATEGY(er_ace)                     \
  STRATEGY(cls_er)                     \
  STRATEGY(agem)                       \
  STRATEGY(gem)                        \
  STRATEGY(der)                        \
  STRATEGY(derpp)                      \
  STRATEGY(gdumb)                      \
  STRATEGY(icarl)                      \
  STRATEGY(sparse_slot)                \
  STRATEGY(packnet)                    \
  STRATEGY(progressive)

namespace strategies {
#define PERENNIAL_DECLARE(name) const StrategyDeclaration& name();
PERENNIAL_STRATEGIES(PERENNIAL_DECLARE)
#undef PERENNIAL_DECLARE
}  // namespace strategies

}  // namespace perennial::continual
