// SPDX-License-Identifier: Apache-2.0
// perennial snapshot: give the current state a name.
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

int run_snapshot(const std::vector<std::string>& args) {
  std::string folder, name;
  CommonOptions common;
  Flags flags("snapshot", kSnapshotCommand.summary,
              "perennial snapshot --store runs/first --name before-spring");
  flags.require("store", folder, "DIR", "the store's folder")
      .require("name", name, "NAME",
               "the snapshot's name, new in the store; up to 128 of A-Z a-z 0-9 . _ -");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto store = open_store(folder);
  throw_if_failed(store->head().status());  // an empty store has nothing to name
  storage::CommitRequest request;
  request.snapshot = name;
  request.note = action_note(*store, "snapshot");
  const storage::CommitInfo info = value_or_throw(store->commit(request));

  const Output output(common.json, common.quiet);
  output.text() << "snapshot '" << name << "' is commit " << info.commit << ", state digest "
                << info.state_digest.hex() << ", " << format_bytes(info.file_bytes)
                << " added\ngo back to it with: perennial restore --store " << folder << " --to "
                << name << '\n';
  output.finish(commit_json(info));
  return kExitOk;
}

}  // namespace

const Command kSnapshotCommand{"snapshot", CommandGroup::history,
                               "give the current state of a store a name to go back to",
                               run_snapshot};

}  // namespace perennial::cli
