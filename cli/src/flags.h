// SPDX-License-Identifier: Apache-2.0
// The flags of a command, made from the visit() declarations of options structs.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "perennial/core/options.h"

namespace perennial::cli {

// Fields become flags with the underscores of their names as dashes: commit_every is --commit-every
// N. Integers and numbers must be written whole and lie in their range, enums are given by name, a
// bool field is --name or --no-name. Values keep what they hold before parse() as their default,
// which help shows. The fields must outlive the object. Single-threaded.
//
// A mistake is an InvalidOptions naming the flag: unknown (with the nearest known name), given
// twice, without a value, with a value that is not allowed, or missing though required.
class Flags {
 public:
  // The command's name, what it does, and a whole command line as an example.
  Flags(std::string_view command, std::string_view summary, std::string_view example);

  // Every field of an options struct. Call once for each struct; names must differ.
  template <class Options>
  Flags& add(Options& options) {
    Adder adder{*this};
    Options::visit(options, adder);
    return *this;
  }
  // One flag of the command's own.
  template <class T>
  Flags& add(std::string_view name, T& value, std::string_view description, Range range = {}) {
    Adder{*this}(name, value, description, range);
    return *this;
  }
  // A flag that must be given; `placeholder` is what help shows for its value, as DIR.
  Flags& require(std::string_view name, std::string& value, std::string_view placeholder,
                 std::string_view description);
  // As add, with a placeholder of its own for help.
  Flags& add_text(std::string_view name, std::string& value, std::string_view placeholder,
                  std::string_view description);
  // A size in bytes: a number with an optional unit (K, M, G, T or KiB, MiB, ...; powers of 1024).
  Flags& add_bytes(std::string_view name, std::int64_t& value, std::string_view description,
                   Range range);
  // A flag that is off until given, as --json; it has no --no- form.
  Flags& add_switch(std::string_view name, bool& value, std::string_view description);

  // Sets the fields from `args`. Returns false when --help or -h was among them: help is then on
  // standard output and the command has nothing left to do.
  bool parse(const std::vector<std::string>& args);
  // True if the flag was given to parse(). Takes the name of the field or of the flag.
  bool given(std::string_view name) const;

  // At most 100 columns wide.
  void print_help(std::ostream& out) const;

 private:
  struct Flag {
    std::string name;         // as typed, without the leading dashes
    std::string placeholder;  // empty: takes no value
    std::string description;
    std::string note;  // default, range, allowed values; for help
    bool required = false;
    bool negatable = false;
    bool given = false;
    std::function<void(const std::string& text)> set;  // of a bool: "true" or "false"
  };
  struct Adder {
    Flags& flags;
    template <class T>
    void operator()(std::string_view name, T& value, std::string_view description,
                    Range range = {});
  };

  Flag& append(std::string_view name, std::string_view placeholder, std::string_view description);
  static std::string flag_name(std::string_view field);
  const Flag* find(std::string_view name) const;
  Flag& at(std::string_view name);
  std::vector<std::string> known_names() const;
  [[noreturn]] void throw_unknown(const std::string& name) const;

  std::string command_;
  std::string summary_;
  std::string example_;
  std::vector<Flag> flags_;
  bool help_ = false;
};

namespace flags_detail {

// Throw InvalidOptions naming flag and text.
std::int64_t parse_integer(const std::string& flag, const std::string& text);
double parse_number(const std::string& flag, const std::string& text);
std::int64_t parse_bytes(const std::string& flag, const std::string& text);
void check_range(const std::string& flag, double value, Range range);
// "default 256, 1 to 1048576"
std::string number_note(double value, Range range);

}  // namespace flags_detail

template <class T>
void Flags::Adder::operator()(std::string_view name, T& value, std::string_view description,
                              Range range) {
  const std::string flag = "--" + flag_name(name);
  if constexpr (std::is_same_v<T, bool>) {
    Flag& made = flags.append(name, "", description);
    made.negatable = true;
    made.note = value ? "default on" : "default off";
    made.set = [&value](const std::string& text) { value = text == "true"; };
  } else if constexpr (std::is_enum_v<T>) {
    Flag& made = flags.append(name, "NAME", description);
    made.note = options_detail::join(options_detail::names_of<T>()) + "; default " +
                std::string(enum_name(value));
    made.set = [&value, flag](const std::string& text) { value = parse_enum<T>(flag, text); };
  } else if constexpr (TextOption<T>) {
    Flag& made = flags.append(name, "NAME", description);
    made.note = "default " + std::string(value.text());
    made.set = [&value, flag](const std::string& text) { value = T::parse(flag, text); };
  } else if constexpr (std::is_integral_v<T>) {
    Flag& made = flags.append(name, "N", description);
    made.note = flags_detail::number_note(static_cast<double>(value), range);
    made.set = [&value, flag, range](const std::string& text) {
      const std::int64_t integer = flags_detail::parse_integer(flag, text);
      flags_detail::check_range(flag, static_cast<double>(integer), range);
      if (!std::in_range<T>(integer)) {
        flags_detail::check_range(flag, static_cast<double>(integer),
                                  {static_cast<double>(std::numeric_limits<T>::min()),
                                   static_cast<double>(std::numeric_limits<T>::max())});
      }
      value = static_cast<T>(integer);
    };
  } else if constexpr (std::is_floating_point_v<T>) {
    Flag& made = flags.append(name, "X", description);
    made.note = flags_detail::number_note(static_cast<double>(value), range);
    made.set = [&value, flag, range](const std::string& text) {
      const double number = flags_detail::parse_number(flag, text);
      flags_detail::check_range(flag, number, range);
      value = static_cast<T>(number);
    };
  } else {
    static_assert(std::is_same_v<T, std::string>);
    flags.add_text(name, value, "TEXT", description);
  }
}

// The flags every command has.
struct CommonOptions {
  bool json = false;
  bool quiet = false;

  void add_to(Flags& flags);
};

}  // namespace perennial::cli
