// SPDX-License-Identifier: Apache-2.0
// perennial strategies: the continual-learning methods there are.
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/continual/run_config.h"

namespace perennial::cli {
namespace {

int run_strategies(const std::vector<std::string>& args) {
  CommonOptions common;
  Flags flags("strategies", kStrategiesCommand.summary.data(), "perennial strategies");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;
  const Output output(common.json, common.quiet);
  Table table({{"strategy", Align::left}, {"what it does", Align::left}});
  Table differences({{"strategy", Align::left}, {"where it differs from its paper", Align::left}});
  boost::json::array strategies;
  for (const auto& [kind, name] : enum_names(continual::StrategyKind{})) {
    table.add_row({std::string(name), std::string(continual::describe(kind))});
    boost::json::object entry{{"name", name}, {"description", continual::describe(kind)}};
    if (const std::string_view differs = continual::differs_from_paper(kind); !differs.empty()) {
      differences.add_row({std::string(name), std::string(differs)});
      entry["differs_from_paper"] = differs;
    }
    if (const std::string_view why = continual::needs_classes(kind); !why.empty()) {
      entry["needs_classes"] = why;
    }
    strategies.push_back(std::move(entry));
  }
  table.print(output.text());
  output.text() << '\n';
  differences.print(output.text());
  output.finish({{"strategies", std::move(strategies)}});
  return kExitOk;
}

}  // namespace

const Command kStrategiesCommand{"strategies", CommandGroup::information,
                                 "the continual-learning strategies and what they do",
                                 run_strategies};

}  // namespace perennial::cli
