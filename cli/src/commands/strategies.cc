// SPDX-License-Identifier: Apache-2.0
// perennial strategies: the continual-learning methods there are.
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <ostream>

#include "commands/commands.h"
#include "flags.h"
#include "output.h"
#include "perennial/continual/strategy_declaration.h"

namespace perennial::cli {
namespace {

using continual::StrategyDeclaration;

// What a run must have for it, in the words of flags.
std::string needs_of(const StrategyDeclaration& declaration) {
  const continual::StrategyNeeds& needs = declaration.needs;
  std::string text;
  const auto add = [&](bool needed, const char* what) {
    if (needed) text += (text.empty() ? "" : ", ") + std::string(what);
  };
  add(!needs.dense_parameters.empty(), "model mlp");
  add(!needs.pool.empty() || !needs.expert_gradients.empty(), "model peer");
  add(!needs.classes.empty(), "classes");
  add(needs.boundaries, "boundaries");
  add(!needs.oracle.empty(), "an oracle at test");
  return text;
}

void print_all(std::ostream& out) {
  Table table({{"strategy", Align::left}, {"needs", Align::left}, {"what it does", Align::left}});
  Table differences({{"strategy", Align::left}, {"where it differs from its paper", Align::left}});
  for (const StrategyDeclaration* declaration : continual::all_strategies()) {
    const std::string name(declaration->name);
    table.add_row({name, needs_of(*declaration), std::string(declaration->description)});
    if (!declaration->differs.empty()) {
      differences.add_row({name, std::string(declaration->differs)});
    }
  }
  table.print(out);
  out << '\n';
  differences.print(out);
}

void print_one(std::ostream& out, const StrategyDeclaration& declaration) {
  out << declaration.name << ": " << declaration.description << '\n';
  const boost::json::object shown = to_json(declaration);
  for (const auto& need : shown.at("needs").as_object()) {
    out << "it " << std::string_view(need.value().as_string()) << '\n';
  }
  if (!declaration.differs.empty()) {
    out << "differs from its paper: " << declaration.differs << '\n';
  }
  out << (declaration.sort == continual::StrategySort::alone
              ? "composes with no other strategy\n"
              : "composes as its " + std::string(enum_name(declaration.sort)) + " part\n");
  if (declaration.options.empty()) return;
  Table options({{"option", Align::left}, {"default"}, {"what it is", Align::left}});
  for (const continual::DeclaredOption* declared : declaration.options) {
    std::any value = declared->initial(*declared);
    const Option option = declared->view(*declared, value);
    options.add_row({std::string(option.name()), option.text(), std::string(option.doc())});
  }
  out << '\n';
  options.print(out);
}

int run_strategies(const std::vector<std::string>& args) {
  CommonOptions common;
  std::string one;
  Flags flags("strategies", kStrategiesCommand.summary, "perennial strategies --strategy ewc");
  flags.add_text("strategy", one, "NAME", "show this one, with its options");
  common.add_to(flags);
  if (!flags.parse(args)) return kExitOk;
  const Output output(common.json, common.quiet);
  boost::json::array strategies;
  if (!one.empty()) {
    const StrategyDeclaration& declaration = continual::strategy_named("--strategy", one);
    print_one(output.text(), declaration);
    strategies.push_back(to_json(declaration));
  } else {
    print_all(output.text());
    for (const StrategyDeclaration* declaration : continual::all_strategies()) {
      strategies.push_back(to_json(*declaration));
    }
  }
  output.finish({{"strategies", std::move(strategies)}});
  return kExitOk;
}

}  // namespace

const Command kStrategiesCommand{"strategies", CommandGroup::information,
                                 "the continual-learning strategies and what they do",
                                 run_strategies};

}  // namespace perennial::cli
