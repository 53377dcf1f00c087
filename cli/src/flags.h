// SPDX-License-Identifier: Apache-2.0
// The flags of a command, made from the visit() declarations of options structs.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "perennial/core/options.h"

namespace perennial::cli {

// Fields become flags with the underscores of their names as dashes: commit_every is --commit-every
// N. Integers and numbers must be written whole and lie in their range, enums are given by name, a
// bool field is --name or --no-name. Values keep what they hold before parse() as their default,
// which help shows. The fields must outlive the object. Single-threaded.
//
// With add_set() an option can also be given by its path, --set model.peer.heads=4, or by as much
// of the path's end as no other option has. Options of different groups that have the same name
// have no flag, only paths.
//
// A mistake is an InvalidOptions naming the flag: unknown (with the nearest known name), given
// twice, without a value, with a value that is not allowed, or missing though required.
class Flags {
 public:
  // The command's name, what it does, and a whole command line as an example.
  Flags(std::string_view command, std::string_view summary, std::string_view example);

  // Every field of an options struct, whose options have paths from `group` on. Call once for each
  // struct.
  template <class Options>
  Flags& add(Options& options, std::string_view group = {}) {
    Adder adder(*this);
    if (group.empty()) {
      Options::visit(options, static_cast<OptionVisitor&>(adder));
    } else {
      adder.group(group, options);
    }
    return *this;
  }
  // One flag of the command's own.
  template <class T>
  Flags& add(std::string_view name, T& value, std::string_view description, Range range = {}) {
    append(name, std::string(name), Option(name, value, description, range));
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

  // --set PATH=VALUE, which may be given more than once.
  Flags& add_set();

  // Sets the fields from `args`. Returns false when --help or -h was among them: help is then on
  // standard output and the command has nothing left to do.
  bool parse(const std::vector<std::string>& args);
  // True if the flag, or its path, was given to parse(). Takes the name of the field or of the
  // flag.
  bool given(std::string_view name) const;

  // At most 100 columns wide.
  void print_help(std::ostream& out) const;

 private:
  struct Flag {
    std::string name;  // as typed, without the leading dashes; empty where only the path will do
    std::string path;
    std::string placeholder;  // empty: takes no value
    std::string description;
    std::string note;  // default, range, allowed values; for help
    bool required = false;
    bool negatable = false;
    bool given = false;
    // Of its path: the groups, and the option's own name.
    std::string group() const;
    std::string last() const;
    // Of a bool: "true" or "false". `label` is what an error calls the flag.
    std::function<void(const std::string& label, const std::string& text)> set;
  };
  class Adder : public PathVisitor {
   public:
    explicit Adder(Flags& flags) : flags_(flags) {}
    void option(const Option& option) override {
      flags_.append(option.name(), path_of(option.name()), option);
    }

   private:
    Flags& flags_;
  };

  Flag& append(std::string_view name, std::string_view placeholder, std::string_view description);
  void append(std::string_view name, const std::string& path, const Option& option);
  // Sets what PATH=VALUE says.
  void set_by_path(const std::string& text);
  Flag& at_path(const std::string& path);
  void give(Flag& flag, const std::string& label, const std::string& text);
  static std::string flag_name(std::string_view field);
  const Flag* find(std::string_view name) const;
  Flag& at(std::string_view name);
  std::vector<std::string> known_names() const;
  [[noreturn]] void throw_unknown(const std::string& name) const;

  std::string command_;
  std::string summary_;
  std::string example_;
  std::vector<Flag> flags_;
  std::set<std::string> shared_;  // names that options of different groups have
  bool by_path_ = false;          // has --set
  bool help_ = false;
};

// The flags every command has.
struct CommonOptions {
  bool json = false;
  bool quiet = false;

  void add_to(Flags& flags);
};

}  // namespace perennial::cli
