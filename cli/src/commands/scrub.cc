// SPDX-License-Identifier: Apache-2.0
// perennial scrub: verify at a gentle rate beside a running program, frozen shards included.
#include <boost/json/array.hpp>
#include <iostream>

#include "commands/commands.h"
#include "flags.h"
#include "learnt_pool.h"
#include "output.h"
#include "perennial/storage/reshard.h"
#include "store_access.h"
#include "verify_report.h"

namespace perennial::cli {
namespace {

int run_scrub(const std::vector<std::string>& args) {
  std::string folder;
  std::int64_t rate = std::int64_t{64} << 20;
  CommonOptions common;
  Flags flags("scrub", kScrubCommand.summary, "perennial scrub --store runs/first --rate 20M");
  flags.require("store", folder, "DIR", "the store's folder; it may be in use")
      .add_bytes("rate", rate, "bytes a second to read at most; 0 = as fast as the disk",
                 Range{0, 1e15});
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto store = open_view(folder);
  const Output output(common.json, common.quiet);
  boost::json::object json = verify_and_print(*store, folder, rate, common, output);
  bool intact = json.at("intact").as_bool();
  boost::json::array shards;
  // A part (perennial reshard) has not all pages of its generations.
  if (intact && store->dense_size("run").ok() && !store->dense_size(storage::kPartEntry).ok()) {
    const continual::LearntModel learnt = continual::load_learnt(*store, 0);
    if (ExpertLayers* experts = learnt.model->experts()) {
      for (std::uint32_t g = 0; g < experts->generations(); ++g) {
        if (experts->state(g) != GenerationState::frozen) continue;
        const bool equal = experts->frozen_intact(g);
        output.text() << "frozen generation " << g
                      << (equal ? " has its digest " : " DOES NOT HAVE ITS DIGEST ")
                      << experts->digest(g).hex() << '\n';
        shards.push_back({{"generation", g}, {"intact", equal}});
        intact = intact && equal;
      }
    }
  }
  json["intact"] = intact;
  json["shards"] = std::move(shards);
  output.finish(json);
  return intact ? kExitOk : damaged(folder, json);
}

}  // namespace

const Command kScrubCommand{"scrub", CommandGroup::safety,
                            "verify gently, beside a running program, frozen shards included",
                            run_scrub};

}  // namespace perennial::cli
