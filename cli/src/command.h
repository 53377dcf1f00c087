// SPDX-License-Identifier: Apache-2.0
// What a command of the program is.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace perennial::cli {

// The exit codes of the program.
enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitData = 3,  // input data or a store is missing, damaged or of a newer format
};

// The groups of `perennial --help`, in its order.
enum class CommandGroup { learn_and_use, pool, history, safety, information };

// `run` gets what follows the command's name, and returns an ExitCode or throws; main turns an
// exception into one line on standard error and an ExitCode.
struct Command {
  std::string_view name;
  CommandGroup group;
  std::string_view summary;
  int (*run)(const std::vector<std::string>& args);
};

}  // namespace perennial::cli
