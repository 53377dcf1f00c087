// SPDX-License-Identifier: Apache-2.0
// Scores of a model on the test sets of a stream.
#pragma once

#include <boost/json/object.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "perennial/continual/model.h"
#include "perennial/continual/stream.h"

namespace perennial::continual {

struct Evaluation {
  std::vector<double> scores;  // (T), as the task judges
  // Share of the inputs of test sets that were learnt that went to the generation of their own
  // experience; empty without a gate, or before anything was learnt.
  std::optional<double> gate_accuracy;
  // Of a regression, for each test set the root mean squared error of each target, in the units of
  // the data; else empty.
  std::vector<std::vector<double>> errors;
};

// Evaluates all T test sets. With `oracle` the model is told the generation of each: its
// experience's, or the newest while that does not exist. The result does not depend on how the test
// sets are cut into batches (models with dense layers: to rounding). `progress` is called with the
// examples done since its last call. `learnt`: the first test sets, whose experiences were learnt;
// all of them without it. Cost: one forward per test example.
Evaluation evaluate(Model& model, const Stream& stream, bool oracle,
                    const std::function<void(std::int64_t examples)>& progress = {},
                    std::optional<std::int64_t> learnt = {});

// {"TARGET": [error on each test set]}, null where it is not finite.
boost::json::object errors_json(const std::vector<std::string>& targets,
                                const std::vector<std::vector<double>>& errors);

}  // namespace perennial::continual
