// SPDX-License-Identifier: Apache-2.0
// Which model and strategy a task gets unasked.
#include "perennial/continual/task_defaults.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

namespace perennial::continual {

namespace {

using Given = std::function<bool(const std::string& option)>;

bool chose_a_model(const Given& given) {
  constexpr std::array<std::string_view, 3> kOfAnyHead = {"seed", "head_inputs", "head_width"};
  // An analytic head over columns takes one pass, in float32, without a pool.
  for (const char* name : {"strategy", "gate", "epochs", "amp", "budget"}) {
    if (given(name)) return true;
  }
  for (const std::string& name : option_names<ModelOptions>()) {
    if (given(name) && std::ranges::find(kOfAnyHead, name) == kOfAnyHead.end()) return true;
  }
  return false;
}

// Options that were given and that the run would not look at.
std::vector<std::string> idle(const RunConfig& config, const Given& given) {
  std::vector<std::string> names;
  for (const UnreadOptions& unread : config.unread()) {
    std::ranges::copy_if(unread.names, std::back_inserter(names), given);
  }
  return names;
}

}  // namespace

std::string choose_for_task(RunConfig& config, const Given& given) {
  if (config.task() != TaskKind::regression || config.stream.stream != StreamKind::single ||
      chose_a_model(given)) {
    return "";
  }
  RunConfig solved = config;
  solved.model.head = HeadKind::analytic;
  solved.train.strategy = "naive";
  const std::vector<std::string> before = idle(config, given);
  for (const std::string& name : idle(solved, given)) {
    if (std::ranges::find(before, name) == before.end()) return "";
  }
  config = std::move(solved);
  return "no model and no strategy was chosen: the numbers are solved for in one pass, as with "
         "--head analytic --strategy naive";
}

}  // namespace perennial::continual
