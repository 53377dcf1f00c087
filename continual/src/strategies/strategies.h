// SPDX-License-Identifier: Apache-2.0
// Makers of the strategies, one a file; strategy.cc picks among them.
#pragma once

#include <memory>

#include "perennial/continual/strategy.h"

namespace perennial::continual {

using StrategyPointer = std::unique_ptr<Strategy>;

StrategyPointer make_naive();
StrategyPointer make_joint();
StrategyPointer make_cumulative();
StrategyPointer make_grow_freeze(const StrategyOptions& options);
StrategyPointer make_grow_on_drift(const StrategyOptions& options);
StrategyPointer make_l2(const StrategyOptions& options);
StrategyPointer make_ewc(const StrategyOptions& options);
StrategyPointer make_online_ewc(const StrategyOptions& options);
StrategyPointer make_si(const StrategyOptions& options);
StrategyPointer make_mas(const StrategyOptions& options);
StrategyPointer make_lwf(const StrategyOptions& options, const StreamShape& shape);
StrategyPointer make_er(const RunConfig& config, const StreamShape& shape);
StrategyPointer make_er_ace(const RunConfig& config, const StreamShape& shape);
StrategyPointer make_der(const RunConfig& config, const StreamShape& shape);
StrategyPointer make_derpp(const RunConfig& config, const StreamShape& shape);
StrategyPointer make_agem(const RunConfig& config, const StreamShape& shape);
StrategyPointer make_gem(const RunConfig& config, const StreamShape& shape);
StrategyPointer make_sparse_slot(const StrategyOptions& options);
StrategyPointer make_icarl(const RunConfig& config, const StreamShape& shape);
StrategyPointer make_packnet(const RunConfig& config, const StreamShape& shape);
StrategyPointer make_progressive();
StrategyPointer make_gdumb(const RunConfig& config, const StreamShape& shape);

}  // namespace perennial::continual
