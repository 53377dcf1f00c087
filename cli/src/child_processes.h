// SPDX-License-Identifier: Apache-2.0
// This program run again as a child, several at a time.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace perennial::cli {

// One child: this program with `args`, its output appended to `log`.
struct ChildTask {
  std::vector<std::string> args;
  std::filesystem::path log;
};

// Runs the tasks, at most `at_once` at a time, in order. `finished(i, exit code)` is called as each
// ends, 128 + the signal for one that was killed; `tick(running)` several times a second with the
// tasks that run. When `stop()` says so no further one is started, those that run get SIGINT, and
// are waited for. A child is killed when this process dies. Throws Error when a child cannot
// be started.
void run_children(const std::vector<ChildTask>& tasks, std::size_t at_once,
                  const std::function<void(std::size_t, int)>& finished,
                  const std::function<void(const std::vector<std::size_t>&)>& tick,
                  const std::function<bool()>& stop);

}  // namespace perennial::cli
