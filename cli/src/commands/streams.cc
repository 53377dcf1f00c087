// SPDX-License-Identifier: Apache-2.0
// perennial streams: the kinds of streams there are.
#include <boost/json/array.hpp>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/continual/stream.h"

namespace perennial::cli {
namespace {

int run_streams(const std::vector<std::string>& args) {
  CommonOptions common;
  Flags flags("streams", kStreamsCommand.summary, "perennial streams --json");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;

  const Output output(common.json, common.quiet);
  Table table({{"stream", Align::left}, {"meaning", Align::left}});
  boost::json::array streams;
  for (const auto& [kind, name] : enum_names(continual::StreamKind{})) {
    const std::string meaning(continual::describe(kind));
    table.add_row({std::string(name), meaning});
    streams.push_back({{"name", name}, {"meaning", meaning}});
  }
  table.print(output.text());
  output.finish({{"streams", std::move(streams)}});
  return kExitOk;
}

}  // namespace

const Command kStreamsCommand{"streams", CommandGroup::information,
                              "list the kinds of streams and what they mean", run_streams};

}  // namespace perennial::cli
