// SPDX-License-Identifier: Apache-2.0
// Which tasks there are, and what their scores are called where they are stored and shown.
#pragma once

#include <cstdint>
#include <string_view>

#include "perennial/core/options.h"

namespace perennial::continual {

enum class TaskKind : std::uint8_t { classification, regression };
EnumNames<TaskKind> enum_names(TaskKind);
// What a task is, in one sentence.
std::string_view describe(TaskKind kind);

// A score is a number for each test set; more is better.
struct ScoreNames {
  const char* metric;  // its mean over the test sets at the end: "acc", "r2"
  const char* values;  // several of them, in events, in metrics.csv and in JSON: "accuracy", "r2"
  const char* title;   // for people: "accuracy", "R squared"
  bool percent;        // shown times 100
};
const ScoreNames& score_names(TaskKind kind);

}  // namespace perennial::continual
