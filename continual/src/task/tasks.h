// SPDX-License-Identifier: Apache-2.0
// The tasks, one a file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "perennial/continual/task.h"

namespace perennial::continual {

// `tasks`: experiences with classes of their own, where it is known at test which one an example is
// of; 0 = it is not.
std::shared_ptr<const Task> make_classification(std::vector<std::string> labels,
                                                std::int64_t tasks);
// `targets`: a name, mean and deviation for each.
std::shared_ptr<const Task> make_regression(Preprocessing targets);

}  // namespace perennial::continual
