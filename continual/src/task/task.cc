// SPDX-License-Identifier: Apache-2.0
// Names of tasks, and making them.
#include "perennial/continual/task.h"

#include <utility>

#include "task/tasks.h"

namespace perennial::continual {

EnumNames<TaskKind> enum_names(TaskKind) { return {{TaskKind::classification, "classification"}}; }

std::string_view describe(TaskKind kind) {
  switch (kind) {
    case TaskKind::classification:
      return "one of several classes for each example";
  }
  return "";
}

const ScoreNames& score_names(TaskKind) {
  static constexpr ScoreNames kAccuracy{"acc", "accuracy", "accuracy", true};
  return kAccuracy;
}

torch::Tensor answers_of(TaskKind, const torch::Tensor& outputs) { return outputs.softmax(1); }

std::shared_ptr<const Task> make_task(const StreamOptions& options,
                                      std::vector<std::string> labels) {
  const bool known = options.resolved_scenario() == Scenario::task_incremental;
  return make_classification(std::move(labels), known ? options.experiences : 0);
}

}  // namespace perennial::continual
