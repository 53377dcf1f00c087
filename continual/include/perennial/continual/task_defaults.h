// SPDX-License-Identifier: Apache-2.0
// Choices that a task suggests where nobody made them.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "perennial/continual/run_config.h"

namespace perennial::continual {

// Of a new run, which `config` describes. A regression over stream single is solved for (head
// analytic, strategy naive) instead of trained for: one pass is enough and nothing needs tuning,
// which the defaults of a RunConfig, meant for long streams of images, do not train a table with.
// `given` says whether an option was chosen; left alone is a configuration of which a strategy, a
// gate, epochs, amp, a budget or an option of the model but its seed and what a head over columns
// reads was chosen, or an option that would then have no reader. What is chosen stands in `config`,
// and so in the run's stored configuration. Returns it as a line for the user; empty where `config`
// was left alone.
std::string choose_for_task(RunConfig& config,
                            const std::function<bool(const std::string& option)>& given);

}  // namespace perennial::continual
