// SPDX-License-Identifier: Apache-2.0
// The content of summary.json.
#pragma once

#include <boost/json/object.hpp>

#include "perennial/continual/trainer.h"

namespace perennial::continual {

// RunResult::to_json with "config" and "machine", which a report needs.
boost::json::object summary_json(const RunResult& result, const RunConfig& config);

}  // namespace perennial::continual
