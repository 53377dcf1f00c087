// SPDX-License-Identifier: Apache-2.0
// The program: finds the command, runs it, and turns what it throws into one line and an exit code.
#include <algorithm>
#include <array>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <exception>
#include <iostream>
#include <new>
#include <utility>

#include "command.h"
#include "commands/commands.h"
#include "output.h"
#include "perennial/core/error.h"
#include "perennial/core/options.h"
#include "perennial/core/text.h"

namespace perennial::cli {
namespace {

constexpr std::size_t kNameColumns = 12;

constexpr std::array<std::pair<CommandGroup, const char*>, 5> kGroups = {{
    {CommandGroup::learn_and_use, "learn and use"},
    {CommandGroup::pool, "the pool"},
    {CommandGroup::history, "its history"},
    {CommandGroup::safety, "its safety"},
    {CommandGroup::information, "what there is"},
}};

void print_help(std::ostream& out) {
  out << "perennial: lifelong learning with expert pools that grow\n\n"
         "usage: perennial COMMAND [flags]\n";
  for (const auto& [group, title] : kGroups) {
    bool first = true;
    for (const Command* command : all_commands()) {
      if (command->group != group) continue;
      if (std::exchange(first, false)) out << '\n' << title << ":\n";
      const std::string name(command->name);
      const std::size_t gap = name.size() < kNameColumns ? kNameColumns - name.size() : 1;
      out << "  " << name << std::string(gap, ' ') << command->summary << '\n';
    }
  }
  out << "\n'perennial COMMAND --help' lists a command's flags, 'perennial --version' says which "
         "this is.\n";
}

const Command& find_command(const std::string& name) {
  std::vector<std::string> known = {"help"};
  for (const Command* command : all_commands()) {
    if (command->name == name) return *command;
    known.emplace_back(command->name);
  }
  const std::string nearest = nearest_name(name, known);
  throw InvalidOptions("unknown command '" + name + "'" +
                       (nearest.empty() ? "" : "; did you mean '" + nearest + "'?"));
}

int run(std::vector<std::string> args) {
  if (args.empty()) throw InvalidOptions("no command given");
  std::string name = args.front();
  args.erase(args.begin());
  if (name == "--version") {
    std::cout << "perennial " << PERENNIAL_VERSION << '\n';
    return kExitOk;
  }
  if (name == "help" && !args.empty()) {
    name = args.front();
    args = {"--help"};
  } else if (name == "help" || name == "--help" || name == "-h") {
    print_help(std::cout);
    return kExitOk;
  }
  if (name.starts_with("-")) {
    throw InvalidOptions("unknown flag '" + name + "'; a command comes first");
  }
  return find_command(name).run(args);
}

struct Failure {
  int code = kExitFailed;
  std::string message;
  std::string hint = {};
};

// Tells of it on standard error, and with --json also as the result.
int report(const Failure& failure, bool json) {
  std::cerr << "perennial: " << failure.message << '\n';
  if (!failure.hint.empty()) std::cerr << "hint: " << failure.hint << '\n';
  std::cerr.flush();
  if (json) {
    boost::json::object object{{"error", valid_utf8(failure.message)}, {"code", failure.code}};
    if (!failure.hint.empty()) object["hint"] = valid_utf8(failure.hint);
    std::cout << boost::json::serialize(object) << std::endl;
  }
  return failure.code;
}

Failure storage_failure(const StorageError& error, const std::string& command) {
  using storage::StatusCode;
  const std::string what = error.what();
  switch (error.code()) {
    case StatusCode::invalid_argument:
      return {kExitUsage, what};
    case StatusCode::not_found:
      return {kExitData, what,
              what.starts_with("no snapshot or commit ") || what.ends_with(" was dropped")
                  ? "'perennial log --store DIR' lists what there is"
                  : ""};
    case StatusCode::corruption:
      // What an import finds is mostly wrong with its file.
      return {kExitData, what,
              command == "verify" || command == "import"
                  ? ""
                  : "'perennial verify --store DIR' names everything that is broken"};
    case StatusCode::version_mismatch:
      return {kExitData, what, "a newer perennial wrote it; update this one"};
    case StatusCode::busy:
      return {kExitFailed, what, "one program at a time can open a store"};
    case StatusCode::no_space:
      return {kExitFailed, what,
              "what was committed is safe; free some space and run the command again"};
    case StatusCode::ok:
    case StatusCode::io_error:
      break;
  }
  return {kExitFailed, what};
}

// Exceptions of other libraries may carry a stack trace after their first line.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// What went wrong, as the exception that is being handled tells it.
Failure failure_of(const std::vector<std::string>& args) {
  const bool has_command = !args.empty() && !args[0].starts_with("-");
  try {
    throw;
  } catch (const InvalidOptions& error) {
    bool known = false;
    for (const Command* command : all_commands()) {
      known = known || (has_command && command->name == args[0]);
    }
    return {kExitUsage, error.what(),
            known ? "'perennial " + args[0] + " --help' lists its flags"
                  : "'perennial --help' lists the commands"};
  } catch (const DataError& error) {
    return {kExitData, error.what()};
  } catch (const StorageError& error) {
    return storage_failure(error, has_command ? args[0] : "");
  } catch (const DeviceError& error) {
    return {kExitFailed, error.what(), "'--device cpu' computes without it"};
  } catch (const std::bad_alloc&) {
    return {kExitFailed, "out of memory"};
  } catch (const std::exception& error) {
    return {kExitFailed, first_line(error.what())};
  }
}

int guarded_main(const std::vector<std::string>& args) {
  try {
    const int code = run(args);
    if (!std::cout.flush()) throw Error("standard output cannot be written");
    return code;
  } catch (const std::exception&) {
    return report(failure_of(args), std::find(args.begin(), args.end(), "--json") != args.end());
  }
}

}  // namespace
}  // namespace perennial::cli

int main(int argc, char** argv) {
  return perennial::cli::guarded_main(std::vector<std::string>(argv + 1, argv + argc));
}
