// SPDX-License-Identifier: Apache-2.0
// The runs of a protocol, each in a process and a folder of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "perennial/continual/run_config.h"
#include "perennial/continual/run_folder.h"

namespace perennial::cli {

struct ProtocolRun {
  std::string row;
  std::string name;  // for people: "er-500, seed 2"
  continual::RunConfig config;
  std::filesystem::path folder;  // config.json, log.txt, and what the run recorded
};

// True when the folder holds a finished run of this configuration. Throws InvalidOptions for
// another configuration.
bool is_done(const ProtocolRun& run);

// What a finished run recorded; empty for one that is not. Throws as is_done does, and DataError
// for a record that cannot be read.
std::optional<continual::RunFolder> result_of(const ProtocolRun& run);

struct RunProtocolOptions {
  std::int64_t jobs = 0;  // runs at a time; 0 = as cores and memory allow
  std::string device = "cpu";
  bool keep_stores = false;
  bool quiet = false;
};

// What runs that ended badly have to say, and their folders.
struct RunFailures {
  std::vector<std::string> messages;
  std::set<std::filesystem::path> folders;
};

// Runs what is not done and has not failed yet, showing progress. False when that was interrupted.
bool run_all(const std::vector<ProtocolRun>& runs, const RunProtocolOptions& options,
             RunFailures& failures);

}  // namespace perennial::cli
