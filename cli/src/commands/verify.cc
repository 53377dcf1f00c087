// SPDX-License-Identifier: Apache-2.0
// perennial verify: read every byte of a store.
#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "store_access.h"
#include "verify_report.h"

namespace perennial::cli {
namespace {

int run_verify(const std::vector<std::string>& args) {
  std::string folder;
  std::int64_t rate = 0;
  CommonOptions common;
  Flags flags("verify", kVerifyCommand.summary, "perennial verify --store runs/first");
  flags.require("store", folder, "DIR", "the store's folder; it may be in use")
      .add_bytes("rate", rate, "bytes a second to read at most; 0 = as fast as the disk",
                 Range{0, 1e15});
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const auto store = open_view(folder);
  const Output output(common.json, common.quiet);
  const boost::json::object result = verify_and_print(*store, folder, rate, common, output);
  output.finish(result);
  return result.at("intact").as_bool() ? kExitOk : damaged(folder, result);
}

}  // namespace

const Command kVerifyCommand{"verify", CommandGroup::safety,
                             "read every byte of a store and name what is broken", run_verify};

}  // namespace perennial::cli
