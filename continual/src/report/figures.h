// SPDX-License-Identifier: Apache-2.0
// The figures of each section of a report; empty text where the runs recorded nothing for them.
#pragma once

#include <string>
#include <vector>

#include "report/groups.h"

namespace perennial::continual::report {

// What the scores are called, and what follows: "Accuracy at the end".
std::string titled(const std::vector<Group>& groups, const std::string& rest);

// Bars of acc and of forgetting, with the standard deviation over seeds.
std::string comparison_figures(const std::vector<Group>& groups);
// A heat map a group, error_tables, and forgetting by experience.
std::string matrix_figures(const std::vector<Group>& groups);
// Of a regression: a table a group and target, of the errors in the units of the data.
std::string error_tables(const std::vector<Group>& groups);
// Scores on what was seen so far: after each experience, and at every anytime point.
std::string learning_figures(const std::vector<Group>& groups);
// Drift of the routing by experience.
std::string routing_figures(const std::vector<Group>& groups);
// Parameters, replay bytes, store bytes, seconds and examples per second by experience.
std::string cost_figures(const std::vector<Group>& groups);

}  // namespace perennial::continual::report
