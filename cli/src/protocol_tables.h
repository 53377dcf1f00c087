// SPDX-License-Identifier: Apache-2.0
// The results of a protocol, in percent, as tables and as JSON.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <vector>

#include "perennial/continual/protocol.h"
#include "perennial/continual/tables.h"
#include "perennial/continual/tuning.h"

namespace perennial::cli {

// A row that was tuned: what was tried, and the results of what was chosen.
struct TunedRow {
  continual::ResultRow result;
  continual::Tuning tuning;
};

// Each row beside what was published for `dataset`; for an empty one nothing was.
continual::TextTable results_table(const continual::Protocol& protocol, const std::string& dataset,
                                   const std::vector<continual::ResultRow>& rows);
// Each row beside what was chosen for it; notes say how, and which choices lie at an edge.
continual::TextTable tuned_table(const std::vector<TunedRow>& rows);

// Mean and deviation of each metric; `published` may be null.
boost::json::object row_json(const continual::ResultRow& row,
                             const continual::PublishedResult* published);
// The same with "settings", "validation_acc", "edges" and "trials".
boost::json::object row_json(const TunedRow& row);

}  // namespace perennial::cli
