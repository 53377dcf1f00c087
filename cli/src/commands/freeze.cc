// SPDX-License-Identifier: Apache-2.0
// perennial freeze: close the open generation of a store by hand.
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "learnt_pool.h"
#include "output.h"

namespace perennial::cli {
namespace {

int run_freeze(const std::vector<std::string>& args) {
  std::string folder, snapshot;
  CommonOptions common;
  Flags flags("freeze", kFreezeCommand.summary.data(), "perennial freeze --store perennial-demo");
  flags.require("store", folder, "DIR", "the store's folder")
      .add_text("snapshot", snapshot, "NAME", "name of a snapshot to keep the result as");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  LearntPool learnt(folder);
  const storage::Digest digest = learnt.model().freeze();
  const storage::CommitInfo info = learnt.commit("freeze", snapshot);
  const Generation& frozen = learnt.experts().pools().front()->generations().back();

  const Output output(common.json, common.quiet);
  output.text() << "generation " << frozen.index << " is frozen, shard digest " << digest.hex()
                << "\ncommit " << info.commit << " wrote " << info.pages_written
                << " pages and dropped " << info.pages_removed << " of optimizer state\n";
  boost::json::object json = commit_json(info);
  json["generation"] = generation_json(frozen);
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kFreezeCommand{"freeze", CommandGroup::pool,
                             "close the open generation of a store's pool for good", run_freeze};

}  // namespace perennial::cli
