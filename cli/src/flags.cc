// SPDX-License-Identifier: Apache-2.0
// Parsing flags with Boost.Program_options, and printing their help.
#include "flags.h"

#include <algorithm>
#include <array>
#include <boost/program_options/errors.hpp>
#include <boost/program_options/options_description.hpp>
#include <boost/program_options/parsers.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <cctype>
#include <charconv>
#include <cmath>
#include <iostream>

#include "output.h"

namespace perennial::cli {
namespace {

namespace po = boost::program_options;

constexpr std::size_t kHelpColumns = 100;
// Flags longer than this have their description on the next line.
constexpr std::size_t kFlagColumns = 28;
constexpr std::string_view kNegation = "no-";
constexpr std::string_view kSet = "set";

std::int64_t parse_bytes(const std::string& flag, const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  std::string unit(stop, end);
  for (char& c : unit) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (unit.ends_with("IB") && unit.size() == 3) unit.resize(1);
  if (unit.ends_with("B") && unit.size() == 2) unit.resize(1);
  constexpr std::string_view kUnits = "BKMGT";
  const std::size_t power = unit.empty() ? 0 : kUnits.find(unit);
  if (error != std::errc{} || unit.size() > 1 || power == std::string_view::npos || !(value >= 0)) {
    throw InvalidOptions(flag + " is '" + text +
                         "'; a size such as 4096, 64M or 1.5G was expected");
  }
  const double bytes = std::ldexp(value, static_cast<int>(10 * power));
  if (!(bytes < 9e18)) throw InvalidOptions(flag + " is '" + text + "', more than 8 exabytes");
  return static_cast<std::int64_t>(bytes);
}

// "default 256; 1 to 1048576"
std::string number_note(const Option& option) {
  std::string note = "default " + option.text();
  const Range range = option.range();
  if (std::isfinite(range.min) && std::isfinite(range.max)) {
    note += "; " + options_detail::short_number(range.min) + " to " +
            options_detail::short_number(range.max);
  }
  return note;
}

std::string_view placeholder_of(Option::Type type) {
  switch (type) {
    case Option::Type::boolean:
      return "";
    case Option::Type::integer:
      return "N";
    case Option::Type::number:
      return "X";
    case Option::Type::choice:
    case Option::Type::name:
      return "NAME";
    case Option::Type::text:
      break;
  }
  return "TEXT";
}

std::string note_of(const Option& option) {
  switch (option.type()) {
    case Option::Type::boolean:
      return option.text() == "true" ? "default on" : "default off";
    case Option::Type::integer:
    case Option::Type::number:
      return number_note(option);
    case Option::Type::choice:
      return options_detail::join(option.choices()) + "; default " + option.text();
    case Option::Type::name:
    case Option::Type::text:
      break;
  }
  return option.text().empty() ? "" : "default " + option.text();
}

}  // namespace

std::string Flags::Flag::group() const {
  const std::size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

std::string Flags::Flag::last() const {
  const std::size_t dot = path.rfind('.');
  return dot == std::string::npos ? path : path.substr(dot + 1);
}

Flags::Flags(std::string_view command, std::string_view summary, std::string_view example)
    : command_(command), summary_(summary), example_(example) {}

std::string Flags::flag_name(std::string_view field) {
  std::string name(field);
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

Flags::Flag& Flags::append(std::string_view name, std::string_view placeholder,
                           std::string_view description) {
  const std::string flag = flag_name(name);
  if (find(flag) != nullptr) throw Error("flag --" + flag + " is declared twice");
  Flag& made = flags_.emplace_back();
  made.name = flag;
  made.path = name;
  made.placeholder = placeholder;
  made.description = description;
  return made;
}

void Flags::append(std::string_view name, const std::string& path, const Option& option) {
  const std::string flag = flag_name(name);
  bool only_path = shared_.contains(flag);
  for (Flag& other : flags_) {
    if (other.name != flag) continue;
    // The same name in another group.
    if (path == name || other.path == name) {
      throw Error("flag --" + flag + " is declared twice");
    }
    other.name.clear();
    shared_.insert(flag);
    only_path = true;
  }
  flags_.push_back({.name = only_path ? std::string() : flag,
                    .path = path,
                    .placeholder = std::string(placeholder_of(option.type())),
                    .description = std::string(option.doc()),
                    .note = note_of(option),
                    .negatable = option.type() == Option::Type::boolean,
                    .set = [option](const std::string& label, const std::string& text) {
                      option.set_text(label, text);
                    }});
}

Flags& Flags::add_text(std::string_view name, std::string& value, std::string_view placeholder,
                       std::string_view description) {
  Flag& made = append(name, placeholder, description);
  if (!value.empty()) made.note = "default " + value;
  made.set = [&value](const std::string&, const std::string& text) { value = text; };
  return *this;
}

Flags& Flags::require(std::string_view name, std::string& value, std::string_view placeholder,
                      std::string_view description) {
  Flag& made = append(name, placeholder, description);
  made.note = "required";
  made.required = true;
  made.set = [&value](const std::string& label, const std::string& text) {
    if (text.empty()) throw InvalidOptions(label + " is empty");
    value = text;
  };
  return *this;
}

Flags& Flags::add_bytes(std::string_view name, std::int64_t& value, std::string_view description,
                        Range range) {
  Flag& made = append(name, "SIZE", description);
  made.note = "default " + (value == 0 ? "0" : format_bytes(static_cast<std::uint64_t>(value)));
  made.set = [&value, range](const std::string& label, const std::string& text) {
    const std::int64_t bytes = parse_bytes(label, text);
    options_detail::check_range(label, static_cast<double>(bytes), range);
    value = bytes;
  };
  return *this;
}

Flags& Flags::add_switch(std::string_view name, bool& value, std::string_view description) {
  Flag& made = append(name, "", description);
  made.set = [&value](const std::string&, const std::string&) { value = true; };
  return *this;
}

Flags& Flags::add_set() {
  by_path_ = true;
  Flag& made = append(kSet, "PATH=VALUE",
                      "set an option by its path, as model.peer.heads=4; --print-config shows all "
                      "of them. May be given more than once");
  made.set = [this](const std::string&, const std::string& text) { set_by_path(text); };
  return *this;
}

void Flags::give(Flag& flag, const std::string& label, const std::string& text) {
  if (flag.given) throw InvalidOptions(label + " is given more than once");
  flag.given = true;
  flag.set(label, text);
}

void Flags::set_by_path(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) {
    throw InvalidOptions("--set " + text + ": PATH=VALUE was expected");
  }
  const std::string path = text.substr(0, equals);
  Flag& flag = at_path(path);
  give(flag, flag.path, text.substr(equals + 1));
}

// The option whose path is, or alone ends in, `path`.
Flags::Flag& Flags::at_path(const std::string& path) {
  std::vector<Flag*> ending;
  std::vector<std::string> known;
  for (Flag& flag : flags_) {
    if (flag.group().empty()) continue;  // of the command, no option of a group
    if (flag.path == path) return flag;
    if (flag.path.ends_with('.' + path)) ending.push_back(&flag);
    // And what its path ends in.
    for (std::size_t at = 0; at != std::string::npos; at = flag.path.find('.', at)) {
      known.push_back(flag.path.substr(at == 0 ? 0 : ++at));
    }
  }
  if (ending.size() == 1) return *ending.front();
  if (ending.empty()) {
    const std::string nearest = nearest_name(path, known);
    throw InvalidOptions("--set: no option '" + path + "'" +
                         (nearest.empty() ? "" : "; did you mean '" + nearest + "'?"));
  }
  std::string message = "--set: '" + path + "' may mean ";
  for (std::size_t i = 0; i < ending.size(); ++i) {
    message += (i == 0 ? "" : " or ") + ending[i]->path;
  }
  throw InvalidOptions(message);
}

const Flags::Flag* Flags::find(std::string_view name) const {
  for (const Flag& flag : flags_) {
    if (!name.empty() && flag.name == name) return &flag;
  }
  return nullptr;
}

// A flag that is known to be there.
Flags::Flag& Flags::at(std::string_view name) {
  return *std::find_if(flags_.begin(), flags_.end(),
                       [name](const Flag& flag) { return flag.name == name; });
}

bool Flags::given(std::string_view name) const {
  return std::ranges::any_of(flags_, [name = flag_name(name)](const Flag& flag) {
    return flag.given && (flag.name == name || flag_name(flag.last()) == name);
  });
}

std::vector<std::string> Flags::known_names() const {
  std::vector<std::string> names = {"help"};
  for (const Flag& flag : flags_) {
    if (flag.name.empty()) continue;
    names.push_back(flag.name);
    if (flag.negatable) names.push_back(std::string(kNegation) + flag.name);
  }
  return names;
}

void Flags::throw_unknown(const std::string& name) const {
  const std::string bare = name.substr(std::min(name.find_first_not_of('-'), name.size()));
  const std::string nearest = nearest_name(bare, known_names());
  throw InvalidOptions("unknown flag '" + name + "' of '" + command_ + "'" +
                       (nearest.empty() ? "" : "; did you mean '--" + nearest + "'?"));
}

bool Flags::parse(const std::vector<std::string>& args) {
  po::options_description described;
  for (const std::string& name : known_names()) {
    const Flag* flag = find(name);
    if (flag == nullptr || flag->placeholder.empty()) {
      described.add_options()(name.c_str(), po::bool_switch());
    } else {
      described.add_options()(name.c_str(), po::value<std::string>());
    }
  }
  std::vector<std::string> words = args;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const Flag* before =
        i == 0 || !words[i - 1].starts_with("--") ? nullptr : find(words[i - 1].substr(2));
    const bool is_value = before != nullptr && !before->placeholder.empty();
    if (words[i] == "-h" && !is_value) words[i] = "--help";
  }
  po::parsed_options parsed(&described);
  using namespace po::command_line_style;
  try {
    parsed = po::command_line_parser(words)
                 .options(described)
                 .style(allow_long | long_allow_adjacent | long_allow_next)
                 .run();
  } catch (const po::unknown_option& error) {
    throw_unknown(error.get_option_name());
  } catch (const po::invalid_command_line_syntax& error) {
    const std::string flag = error.get_option_name();
    switch (error.kind()) {
      case po::invalid_syntax::missing_parameter:
      case po::invalid_syntax::empty_adjacent_parameter:
        throw InvalidOptions(flag + " needs a value");
      case po::invalid_syntax::extra_parameter:
        throw InvalidOptions(flag + " takes no value");
      default:
        throw InvalidOptions(error.what());
    }
  } catch (const po::error& error) {
    throw InvalidOptions(error.what());
  }

  for (const po::option& option : parsed.options) {
    if (option.position_key != -1 || option.string_key.empty()) {
      const std::string text = option.value.empty() ? "" : option.value[0];
      if (text.starts_with("-")) throw_unknown(text);
      throw InvalidOptions("unexpected argument '" + text + "' of '" + command_ + "'");
    }
    if (option.string_key == "help") help_ = true;
  }
  if (help_) {
    print_help(std::cout);
    return false;
  }
  for (const po::option& option : parsed.options) {
    std::string name = option.string_key;
    const bool negated = find(name) == nullptr;
    if (negated) name.erase(0, kNegation.size());
    Flag& flag = at(name);
    if (name == kSet && by_path_) {
      flag.set("", option.value.at(0));
    } else if (!flag.placeholder.empty()) {
      give(flag, "--" + name, option.value.at(0));
    } else {
      give(flag, "--" + name, negated ? "false" : "true");
    }
  }
  for (const Flag& flag : flags_) {
    if (flag.required && !flag.given) {
      throw InvalidOptions("--" + flag.name + " " + flag.placeholder +
                           " is missing: " + flag.description);
    }
  }
  return true;
}

void Flags::print_help(std::ostream& out) const {
  out << "perennial " << command_ << ": " << summary_ << "\n\nusage: perennial " << command_;
  for (const Flag& flag : flags_) {
    if (flag.required) out << " --" << flag.name << ' ' << flag.placeholder;
  }
  out << " [flags]\n\nflags:\n";
  const auto line = [&](std::string left, const std::string& description, const std::string& note) {
    left = "  " + left;
    const std::string text = note.empty() ? description : description + " (" + note + ")";
    bool first = true;
    for (const std::string& part : wrap(text, kHelpColumns - kFlagColumns)) {
      if (first && left.size() + 2 > kFlagColumns) {
        out << left << '\n';
        left.clear();
      }
      if (!first) left.clear();
      out << left << std::string(kFlagColumns - left.size(), ' ') << part << '\n';
      first = false;
    }
  };
  std::string group;
  for (const Flag& flag : flags_) {
    const std::string own = flag.group();
    if (own != group) out << '\n' << (own.empty() ? "other" : own) << ":\n";
    group = own;
    if (flag.name.empty()) {
      line("--set " + flag.path + "=" + (flag.placeholder.empty() ? "true" : flag.placeholder),
           flag.description, flag.note);
      continue;
    }
    line("--" + std::string(flag.negatable ? "[no-]" : "") + flag.name +
             (flag.placeholder.empty() ? "" : " " + flag.placeholder),
         flag.description, flag.note);
  }
  line("--help, -h", "print this and leave", "");
  out << "\nexample:\n  " << example_ << '\n';
}

void CommonOptions::add_to(Flags& flags) {
  flags.add_switch("json", json,
                   "end standard output with the result, or what went wrong, as one line of JSON; "
                   "text goes to standard error");
  flags.add_switch("quiet", quiet, "no progress and no text, only results and errors");
}

}  // namespace perennial::cli
