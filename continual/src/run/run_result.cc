// SPDX-License-Identifier: Apache-2.0
// A run's result as JSON.
#include "run/run_result.h"

#include <boost/json/value_from.hpp>

#include "perennial/continual/evaluate.h"
#include "run/run_note.h"

namespace perennial::continual {

namespace json = boost::json;

json::object RunResult::metrics() const {
  json::object object = all_metrics(matrix, task);
  if (anytime.options.on()) {
    for (const auto& metric : all_metrics(anytime)) object[metric.key()] = metric.value();
  }
  return object;
}

json::object RunResult::to_json() const {
  json::object object = metrics();
  if (anytime.options.on()) object["anytime_curve"] = anytime.to_json();
  object["matrix"] = matrix.to_json();
  object["gate_accuracy"] = gate_accuracy ? json::value(*gate_accuracy) : json::value(nullptr);
  if (!errors.empty()) object["rmse"] = errors_json(targets, errors);
  if (!unlearned_since.empty()) object["unlearned_since"] = json::value_from(unlearned_since);
  object["finished"] = finished;
  object["steps"] = steps;
  object["seconds"] = seconds;
  object["state_digest"] = state_digest;
  object["device"] = placement.device.str();
  if (pager) object["pager"] = counters_json(*pager);
  return object;
}

json::object summary_json(const RunResult& result, const RunConfig& config) {
  json::object summary = result.to_json();
  summary["config"] = config.to_json();
  summary["machine"] = machine(result.placement);
  return summary;
}

}  // namespace perennial::continual
