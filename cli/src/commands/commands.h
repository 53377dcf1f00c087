// SPDX-License-Identifier: Apache-2.0
// Every command of the program; main lists them in all_commands().
#pragma once

#include <span>

#include "command.h"

namespace perennial::cli {

extern const Command kBenchCommand;
extern const Command kCopyCommand;
extern const Command kDemoCommand;
extern const Command kDiffCommand;
extern const Command kDropCommand;
extern const Command kEvalCommand;
extern const Command kExportCommand;
extern const Command kFreezeCommand;
extern const Command kGcCommand;
extern const Command kGrowCommand;
extern const Command kImportCommand;
extern const Command kInspectCommand;
extern const Command kLogCommand;
extern const Command kPredictCommand;
extern const Command kProtocolsCommand;
extern const Command kRepairCommand;
extern const Command kReportCommand;
extern const Command kReshardCommand;
extern const Command kRestoreCommand;
extern const Command kScrubCommand;
extern const Command kSnapshotCommand;
extern const Command kStrategiesCommand;
extern const Command kStreamsCommand;
extern const Command kTrainCommand;
extern const Command kUnlearnCommand;
extern const Command kVerifyCommand;

// In the order of help.
std::span<const Command* const> all_commands();

}  // namespace perennial::cli
