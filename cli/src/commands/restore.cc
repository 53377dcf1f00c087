// SPDX-License-Identifier: Apache-2.0
// perennial restore: go back to an earlier state.
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

int run_restore(const std::vector<std::string>& args) {
  std::string folder, target, name;
  bool drop_later = false;
  CommonOptions common;
  Flags flags("restore", kRestoreCommand.summary,
              "perennial restore --store runs/first --to before-spring");
  flags.require("store", folder, "DIR", "the store's folder")
      .require("to", target, "NAME|N", "a snapshot's name, or the number of a commit")
      .add_text("name", name, "NAME", "make the restored state a snapshot of this name")
      .add_switch("drop-later", drop_later, "roll back: also drop every commit that came after it");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto store = open_store(folder);
  const std::uint64_t commit = value_or_throw(store->resolve(target));
  auto target_state = value_or_throw(store->at(commit));
  const std::string note = action_note(*target_state, "restore", commit);
  target_state.reset();
  std::vector<std::string> later;  // what a roll back drops
  std::size_t dropped = 0;
  for (const storage::CommitInfo& before : store->log()) {
    if (!drop_later || before.commit <= commit) continue;
    ++dropped;
    if (!before.snapshot.empty()) later.push_back(before.snapshot);
  }
  const storage::CommitInfo info = value_or_throw(
      store->restore({.commit = commit, .snapshot = name, .note = note, .drop_later = drop_later}));

  const Output output(common.json, common.quiet);
  output.text() << "the state of commit " << commit << " is current again, as commit "
                << info.commit << ", state digest " << info.state_digest.hex() << '\n';
  if (drop_later) {
    output.text() << "dropped " << format_number_of(dropped, "later commit");
    for (std::size_t i = 0; i < later.size(); ++i) {
      output.text() << (i == 0 ? ", with the snapshots " : ", ") << later[i];
    }
    output.text() << "; the space comes back with: perennial gc --store " << folder << '\n';
  } else {
    output.text() << "later commits are listed by: perennial log --store " << folder << '\n';
  }
  boost::json::object result = commit_json(info);
  result["restored"] = commit;
  result["dropped"] = dropped;
  output.finish(result);
  return kExitOk;
}

}  // namespace

const Command kRestoreCommand{"restore", CommandGroup::history,
                              "make an earlier state of a store the current one, as a new commit",
                              run_restore};

}  // namespace perennial::cli
