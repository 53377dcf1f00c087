// SPDX-License-Identifier: Apache-2.0
// What strategies that grow do with generations, and what they log of it.
#pragma once

#include <cstdint>
#include <optional>

#include "perennial/continual/strategy.h"

namespace perennial::continual {

// Opens a generation; the pool has none open.
std::uint32_t open_generation(StrategyContext& context);
// Freezes the open generation, and solves the gate.
void freeze_generation(StrategyContext& context);
// The generation that observed something, with `open` also the open one, to which inputs x: (B,
// d_in) are least foreign, if they are less so than return_novelty. Decided by the inputs alone,
// from the gate's statistics; nothing where that option is 0 or there is no analytic gate.
std::optional<std::int64_t> returned_to(StrategyContext& context, const torch::Tensor& x,
                                        bool open = false);

}  // namespace perennial::continual
