// SPDX-License-Identifier: Apache-2.0
// perennial unlearn: take back what a generation learnt.
#include "perennial/continual/unlearn.h"

#include <boost/json/array.hpp>
#include <limits>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "store_access.h"

namespace perennial::cli {
namespace {

constexpr std::uint32_t kNewest = std::numeric_limits<std::uint32_t>::max();

std::string list_of(const std::vector<std::uint32_t>& generations) {
  std::string text = generations.size() == 1 ? "generation " : "generations ";
  for (std::size_t i = 0; i < generations.size(); ++i) {
    if (i > 0) text += i + 1 == generations.size() ? " and " : ", ";
    text += std::to_string(generations[i]);
  }
  return text;
}

int run_unlearn(const std::vector<std::string>& args) {
  std::string folder;
  std::uint32_t generation = kNewest;
  continual::UnlearnOptions options;
  CommonOptions common;
  Flags flags("unlearn", kUnlearnCommand.summary,
              "perennial unlearn --store perennial-demo --generation 4");
  flags.require("store", folder, "DIR", "the store's folder")
      .add("generation", generation, "the generation to unlearn; not given = the newest",
           Range{0, 4294967295.})
      .add_switch("cascade", options.cascade,
                  "unlearn with it the newer generations that read it while they learnt")
      .add_text("snapshot", options.snapshot, "NAME", "name of a snapshot to keep the result as");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;
  if (generation != kNewest) options.generation = generation;

  const auto store = open_store(folder);
  const continual::Unlearned done = continual::unlearn(*store, options);

  const Output output(common.json, common.quiet);
  std::ostream& out = output.text();
  out << list_of(done.generations) << (done.generations.size() == 1 ? " is" : " are")
      << " unlearned: experts, keys and gate statistics are gone\n";
  if (done.experience) {
    out << "the run is where experience " << *done.experience + 1
        << " begins; it learns that next with: perennial train --store " << folder << '\n';
  }
  out << "commit " << done.commit.commit << ", state digest " << done.commit.state_digest.hex()
      << '\n';
  std::string held;
  boost::json::array held_json;
  for (const storage::CommitInfo& info : done.held_by) {
    held += (held.empty() ? "" : ",") +
            (info.snapshot.empty() ? std::to_string(info.commit) : info.snapshot);
    held_json.push_back(info.commit);
  }
  if (!held.empty()) {
    out << "the history still has it; forget it there too with: perennial drop --store " << folder
        << " --commits " << held << "\nand then: perennial gc --store " << folder << '\n';
  }
  boost::json::object json = commit_json(done.commit);
  json["unlearned"] = boost::json::array(done.generations.begin(), done.generations.end());
  json["experience"] =
      done.experience ? boost::json::value(*done.experience + 1) : boost::json::value(nullptr);
  json["held_by"] = std::move(held_json);
  output.finish(json);
  return kExitOk;
}

}  // namespace

const Command kUnlearnCommand{"unlearn", CommandGroup::pool,
                              "take back what a generation learnt, exactly", run_unlearn};

}  // namespace perennial::cli
