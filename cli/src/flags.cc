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

std::string short_number(double value) {
  std::array<char, 32> text;
  const bool whole = std::abs(value) < 1e15 && value == std::trunc(value);
  const auto end = whole ? std::to_chars(text.data(), text.data() + text.size(),
                                         static_cast<std::int64_t>(value))
                         : std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), end.ptr};
}

template <class T>
bool parse_whole(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && stop == end;
}

}  // namespace

namespace flags_detail {

std::int64_t parse_integer(const std::string& flag, const std::string& text) {
  std::int64_t value = 0;
  if (!parse_whole(text, value)) {
    throw InvalidOptions(flag + " is '" + text + "'; an integer was expected");
  }
  return value;
}

double parse_number(const std::string& flag, const std::string& text) {
  double value = 0;
  if (!parse_whole(text, value) || !std::isfinite(value)) {
    throw InvalidOptions(flag + " is '" + text + "'; a number was expected");
  }
  return value;
}

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

void check_range(const std::string& flag, double value, Range range) {
  if (value >= range.min && value <= range.max) return;
  throw InvalidOptions(flag + " is " + short_number(value) +
                       "; allowed: " + short_number(range.min) + " to " + short_number(range.max));
}

std::string number_note(double value, Range range) {
  std::string note = "default " + short_number(value);
  if (std::isfinite(range.min) && std::isfinite(range.max)) {
    note += "; " + short_number(range.min) + " to " + short_number(range.max);
  }
  return note;
}

}  // namespace flags_detail

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
  made.placeholder = placeholder;
  made.description = description;
  return made;
}

Flags& Flags::add_text(std::string_view name, std::string& value, std::string_view placeholder,
                       std::string_view description) {
  Flag& made = append(name, placeholder, description);
  if (!value.empty()) made.note = "default " + value;
  made.set = [&value](const std::string& text) { value = text; };
  return *this;
}

Flags& Flags::require(std::string_view name, std::string& value, std::string_view placeholder,
                      std::string_view description) {
  Flag& made = append(name, placeholder, description);
  made.note = "required";
  made.required = true;
  made.set = [&value, flag = "--" + made.name](const std::string& text) {
    if (text.empty()) throw InvalidOptions(flag + " is empty");
    value = text;
  };
  return *this;
}

Flags& Flags::add_bytes(std::string_view name, std::int64_t& value, std::string_view description,
                        Range range) {
  Flag& made = append(name, "SIZE", description);
  made.note = "default " + (value == 0 ? "0" : format_bytes(static_cast<std::uint64_t>(value)));
  made.set = [&value, flag = "--" + made.name, range](const std::string& text) {
    const std::int64_t bytes = flags_detail::parse_bytes(flag, text);
    flags_detail::check_range(flag, static_cast<double>(bytes), range);
    value = bytes;
  };
  return *this;
}

Flags& Flags::add_switch(std::string_view name, bool& value, std::string_view description) {
  Flag& made = append(name, "", description);
  made.set = [&value](const std::string&) { value = true; };
  return *this;
}

const Flags::Flag* Flags::find(std::string_view name) const {
  for (const Flag& flag : flags_) {
    if (flag.name == name) return &flag;
  }
  return nullptr;
}

// A flag that is known to be there.
Flags::Flag& Flags::at(std::string_view name) {
  return *std::find_if(flags_.begin(), flags_.end(),
                       [name](const Flag& flag) { return flag.name == name; });
}

bool Flags::given(std::string_view name) const {
  const Flag* flag = find(flag_name(name));
  return flag != nullptr && flag->given;
}

std::vector<std::string> Flags::known_names() const {
  std::vector<std::string> names = {"help"};
  for (const Flag& flag : flags_) {
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
    if (flag.given) throw InvalidOptions("--" + name + " is given more than once");
    flag.given = true;
    if (!flag.placeholder.empty()) {
      flag.set(option.value.at(0));
    } else {
      flag.set(negated ? "false" : "true");
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
  for (const Flag& flag : flags_) {
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
