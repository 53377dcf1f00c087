// SPDX-License-Identifier: Apache-2.0
// Names of tasks, and making them.
#include "perennial/continual/task.h"

#include <utility>

#include "task/tasks.h"

namespace perennial::continual {

EnumNames<TaskKind> enum_names(TaskKind) {
  return {{TaskKind::classification, "classification"}, {TaskKind::regression, "regression"}};
}

std::string_view describe(TaskKind kind) {
  switch (kind) {
    case TaskKind::classification:
      return "one of several classes for each example";
    case TaskKind::regression:
      return "one number or more for each example";
  }
  return "";
}

const ScoreNames& score_names(TaskKind kind) {
  static constexpr ScoreNames kAccuracy{"acc", "accuracy", "accuracy", true};
  static constexpr ScoreNames kRSquared{"r2", "r2", "R squared", false};
  return kind == TaskKind::classification ? kAccuracy : kRSquared;
}

torch::Tensor answers_of(TaskKind kind, const torch::Tensor& outputs) {
  return kind == TaskKind::classification ? outputs.softmax(1) : outputs;
}

std::shared_ptr<const Task> make_task(const StreamOptions& options, std::vector<std::string> labels,
                                      const Preprocessing& targets) {
  if (options.table.task == TaskKind::regression) return make_regression(targets);
  const bool known = options.resolved_scenario() == Scenario::task_incremental;
  return make_classification(std::move(labels), known ? options.experiences : 0);
}

}  // namespace perennial::continual
