// SPDX-License-Identifier: Apache-2.0
// The list of commands.
#include "commands/commands.h"

#include <array>

namespace perennial::cli {

std::span<const Command* const> all_commands() {
  static constexpr std::array kCommands = {
      &kDemoCommand,       &kTrainCommand,     &kEvalCommand,    &kPredictCommand,
      &kBenchCommand,                                                               // learn and use
      &kGrowCommand,       &kFreezeCommand,    &kUnlearnCommand, &kInspectCommand,  // the pool
      &kSnapshotCommand,   &kLogCommand,       &kDiffCommand,                       // its history
      &kRestoreCommand,    &kDropCommand,      &kCopyCommand,    &kGcCommand,
      &kVerifyCommand,     &kScrubCommand,     &kRepairCommand,  // its safety
      &kExportCommand,     &kImportCommand,    &kReshardCommand, &kStreamsCommand,
      &kStrategiesCommand, &kProtocolsCommand, &kReportCommand,  // what there is
  };
  return kCommands;
}

}  // namespace perennial::cli
