// SPDX-License-Identifier: Apache-2.0
// perennial drop: forget commits and snapshots.
#include <algorithm>
#include <boost/json/array.hpp>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/core/error.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

int run_drop(const std::vector<std::string>& args) {
  std::string folder, names;
  CommonOptions common;
  Flags flags("drop", kDropCommand.summary,
              "perennial drop --store runs/first --commits 3,4,draft");
  flags.require("store", folder, "DIR", "the store's folder")
      .require("commits", names, "NAME|N,...", "snapshots and commit numbers, with commas between");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;
  const std::vector<std::string> wanted = split_list("commits", names);

  const auto store = open_store(folder);
  std::vector<std::uint64_t> commits;
  for (const std::string& name : wanted) {
    const std::uint64_t commit = value_or_throw(store->resolve(name));
    if (std::find(commits.begin(), commits.end(), commit) == commits.end()) {
      commits.push_back(commit);
    }
  }
  const storage::CommitInfo info =
      value_or_throw(store->drop(commits, action_note(*store, "drop")));

  const Output output(common.json, common.quiet);
  output.text() << "dropped " << format_number_of(commits.size(), "commit")
                << " (recorded as commit " << info.commit
                << ")\ntheir space comes back with: perennial gc --store " << folder << '\n';
  boost::json::object json = commit_json(info);
  json["dropped"] = boost::json::array(commits.begin(), commits.end());
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kDropCommand{"drop", CommandGroup::history,
                           "forget commits and snapshots; gc gives their space back", run_drop};

}  // namespace perennial::cli
