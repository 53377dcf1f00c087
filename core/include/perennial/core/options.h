// SPDX-License-Identifier: Apache-2.0
// One declaration an option: what turns a struct of options into JSON, reads it back, checks it,
// and makes flags and help of it.
//
// An options struct is an aggregate with a static member template
//   template <class Self, class Visitor> static void visit(Self& self, Visitor& visitor);
// that calls visitor(name, self.field, "what it means, its unit", Range{min, max}) for each field,
// in the order of help, and visitor.group(name, self.member) for a struct of options within it. The
// range is left out for bool, enum and text fields. Enums provide enum_names(E) by
// argument-dependent look-up.
//
// An option's path names the groups around it, as model.peer.heads, of an element of a repeated
// group with its number from 0, as blocks[2].heads. Its name alone will do where no other option
// has it.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <concepts>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "perennial/core/error.h"

namespace perennial {

// Closed interval a value must lie in.
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
};

template <class E>
using EnumNames = std::vector<std::pair<E, std::string_view>>;

template <class E>
std::string_view enum_name(E value) {
  for (const auto& [candidate, name] : enum_names(value)) {
    if (candidate == value) return name;
  }
  return "?";
}

// The name in `known` nearest to `name` by edit distance, or empty when none is near.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

// A value that is no number, bool, enum or plain text, but has a text of its own: T::parse(field,
// text) throws InvalidOptions naming the field, and parse(field, v.text()) is v.
template <class T>
concept TextOption = requires(const T& value, std::string_view text) {
  { value.text() } -> std::convertible_to<std::string>;
  { T::parse(text, text) } -> std::same_as<T>;
};

namespace options_detail {

std::string join(const std::vector<std::string>& names);
[[noreturn]] void throw_unknown(std::string_view what, std::string_view name,
                                const std::vector<std::string>& known);
// What is not in the range of the option, or of its type.
void check_range(std::string_view label, double value, Range range);
void require_utf8(std::string_view label, std::string_view text);

// Reading one value, from JSON and from text. `label` is what an error calls the option.
bool to_bool(std::string_view label, const boost::json::value& value);
std::int64_t to_integer(std::string_view label, const boost::json::value& value);
double to_number(std::string_view label, const boost::json::value& value);
std::string_view to_text(std::string_view label, const boost::json::value& value);
bool parse_bool(std::string_view label, std::string_view text);
std::int64_t parse_integer(std::string_view label, std::string_view text);
double parse_number(std::string_view label, std::string_view text);
// A JSON number when reading it back gives the same double, else its shortest decimal text:
// Boost.JSON parses some numbers one unit in the last place off, which would not do for stored
// options.
boost::json::value exact_number(double value);
// As short as it can be and still be this number.
std::string short_number(double value);

template <class E>
std::vector<std::string> names_of() {
  std::vector<std::string> names;
  for (const auto& [value, name] : enum_names(E{})) names.emplace_back(name);
  return names;
}

template <class T>
T checked_integer(std::string_view label, std::int64_t integer) {
  if (!std::in_range<T>(integer)) {
    check_range(label, static_cast<double>(integer),
                {static_cast<double>(std::numeric_limits<T>::min()),
                 static_cast<double>(std::numeric_limits<T>::max())});
  }
  return static_cast<T>(integer);
}

}  // namespace options_detail

// Parses an enum's name; throws InvalidOptions naming field, value and the nearest name.
template <class E>
E parse_enum(std::string_view field, std::string_view text) {
  for (const auto& [value, name] : enum_names(E{})) {
    if (name == text) return value;
  }
  options_detail::throw_unknown(std::string("value for ") + std::string(field), text,
                                options_detail::names_of<E>());
}

// One option as a visitor meets it: its declaration, and its value wherever that lies, whose type
// only the declaration knows. A view: declaration and value must outlive it.
class Option {
 public:
  // name: a text with a form of its own (TextOption).
  enum class Type : std::uint8_t { boolean, integer, number, choice, name, text };

  template <class T>
  Option(std::string_view name, T& value, std::string_view doc, Range range = {})
      : name_(name), doc_(doc), range_(range), value_(&value), of_(&kOperations<T>) {}

  std::string_view name() const { return name_; }
  std::string_view doc() const { return doc_; }
  // Of a number; all of them otherwise.
  Range range() const { return range_; }
  Type type() const { return of_->type; }
  // The names of a choice; empty otherwise.
  std::vector<std::string> choices() const { return of_->choices(); }

  boost::json::value json() const { return of_->json(value_); }
  // As set_text() reads it.
  std::string text() const { return of_->text(value_); }
  // Throw InvalidOptions, naming the option by `label`, for what is not of its type; set_text() and
  // check() also for what is out of its range; check() for a text that is not UTF-8 and could not
  // be stored.
  void set_json(std::string_view label, const boost::json::value& value) const {
    of_->set_json(label, value, value_);
  }
  void set_text(std::string_view label, std::string_view text) const {
    of_->set_text(label, text, range_, value_);
  }
  void check(std::string_view label) const { of_->check(label, range_, value_); }

 private:
  struct Operations {
    Type type;
    std::vector<std::string> (*choices)();
    boost::json::value (*json)(const void*);
    std::string (*text)(const void*);
    void (*set_json)(std::string_view, const boost::json::value&, void*);
    void (*set_text)(std::string_view, std::string_view, Range, void*);
    void (*check)(std::string_view, Range, const void*);
  };
  template <class T>
  struct Of;
  template <class T>
  static constexpr Operations kOperations = {Of<T>::kType, Of<T>::choices,  Of<T>::json,
                                             Of<T>::text,  Of<T>::set_json, Of<T>::set_text,
                                             Of<T>::check};

  std::string_view name_;
  std::string_view doc_;
  Range range_;
  void* value_;
  const Operations* of_;
};

// What visit() calls.
class OptionVisitor {
 public:
  virtual ~OptionVisitor() = default;

  template <class T>
  void operator()(std::string_view name, T& value, std::string_view doc, Range range = {}) {
    option(Option(name, value, doc, range));
  }
  template <class Options>
  void group(std::string_view name, Options& options) {
    begin_group(name, std::nullopt);
    Options::visit(options, static_cast<OptionVisitor&>(*this));
    end_group();
  }
  // A group that shows what `visit` lets through.
  template <std::invocable<OptionVisitor&> Visit>
  void group(std::string_view name, Visit visit) {
    begin_group(name, std::nullopt);
    visit(*this);
    end_group();
  }
  // A group that is repeated.
  template <class Options>
  void group(std::string_view name, std::vector<Options>& elements) {
    elements.resize(begin_groups(name, elements.size()));
    for (std::size_t i = 0; i < elements.size(); ++i) {
      begin_group(name, i);
      Options::visit(elements[i], static_cast<OptionVisitor&>(*this));
      end_group();
    }
    end_groups();
  }

  virtual void option(const Option& option) = 0;

 protected:
  virtual void begin_group(std::string_view /*name*/, std::optional<std::size_t> /*index*/) {}
  virtual void end_group() {}
  // How many elements a repeated group shall have that has `size`.
  virtual std::size_t begin_groups(std::string_view /*name*/, std::size_t size) { return size; }
  virtual void end_groups() {}
};

// Lets through all options but some, for what holds a struct and decides those itself.
class ExceptVisitor : public OptionVisitor {
 public:
  ExceptVisitor(OptionVisitor& inner, std::vector<std::string_view> names)
      : inner_(inner), names_(std::move(names)) {}
  void option(const Option& option) override;

 protected:
  // Of structs without groups: a mistake of the program.
  void begin_group(std::string_view name, std::optional<std::size_t> index) override;

 private:
  OptionVisitor& inner_;
  std::vector<std::string_view> names_;
};

// A visitor that knows the path of what it meets.
class PathVisitor : public OptionVisitor {
 protected:
  std::string path_of(std::string_view name) const;
  void begin_group(std::string_view name, std::optional<std::size_t> index) override;
  void end_group() override { groups_.pop_back(); }

 private:
  std::vector<std::string> groups_;
};

// How JSON shows groups: flat as if their options stood in the struct around them, or nested as
// objects. A repeated group is an array of objects in either.
enum class JsonForm : std::uint8_t { flat, nested };

class ToJsonVisitor : public OptionVisitor {
 public:
  explicit ToJsonVisitor(JsonForm form) : form_(form) {}
  void option(const Option& option) override;
  boost::json::object object;

 protected:
  void begin_group(std::string_view name, std::optional<std::size_t> index) override;
  void end_group() override;
  std::size_t begin_groups(std::string_view name, std::size_t size) override;
  void end_groups() override;

 private:
  struct Outer {
    boost::json::object object;  // what was made before the group began
    std::string name;
    bool element;
  };
  bool inlined(bool element) const { return form_ == JsonForm::flat && !element; }

  JsonForm form_;
  std::vector<Outer> outer_;
  std::vector<boost::json::array> arrays_;
  std::vector<std::string> array_names_;
};

// Reads the options that are there, of either form.
class FromJsonVisitor : public PathVisitor {
 public:
  explicit FromJsonVisitor(const boost::json::object& object);

  void option(const Option& option) override;
  // Throws InvalidOptions for the first key that no option took.
  void refuse_unknown() const;

 protected:
  void begin_group(std::string_view name, std::optional<std::size_t> index) override;
  void end_group() override;
  std::size_t begin_groups(std::string_view name, std::size_t size) override;
  void end_groups() override;

 private:
  // An object of the JSON text, and what options and groups have asked it for.
  struct Level {
    const boost::json::object* object = nullptr;
    std::string path = {};
    std::map<std::string, std::string, std::less<>> asked = {};  // key: path of who asked first
    std::set<std::string, std::less<>> groups = {};              // keys that groups have
  };

  Level& level() { return levels_[open_.back().level]; }

  std::vector<Level> levels_;  // in the order in which their groups began
  // Of the groups that have begun and have not ended, outermost first.
  struct Open {
    std::size_t level;     // its own, or in the flat form that of the group around it
    bool element = false;  // of a repeated group: its options stand nowhere else
  };
  std::vector<Open> open_;
  std::vector<const boost::json::array*> arrays_;  // of repeated groups; null where JSON has none
};

// Throws InvalidOptions naming the first option that is out of range, or whose text is not UTF-8
// and could not be stored.
class ValidateVisitor : public OptionVisitor {
 public:
  void option(const Option& option) override { option.check(option.name()); }
};

template <class Options>
boost::json::object to_json(Options options, JsonForm form = JsonForm::flat) {
  ToJsonVisitor visitor(form);
  Options::visit(options, static_cast<OptionVisitor&>(visitor));
  return std::move(visitor.object);
}

// What is absent stays as it is in `options`; unknown keys are refused with the nearest known name.
template <class Options>
void read_json(Options& options, const boost::json::object& object) {
  FromJsonVisitor visitor(object);
  Options::visit(options, static_cast<OptionVisitor&>(visitor));
  visitor.refuse_unknown();
}

template <class Options>
Options from_json(const boost::json::object& object) {
  Options options;
  read_json(options, object);
  return options;
}

template <class Options>
void validate_ranges(Options options) {
  ValidateVisitor visitor;
  Options::visit(options, static_cast<OptionVisitor&>(visitor));
}

// The names of all options of a struct, in the order of help.
template <class Options>
std::vector<std::string> option_names() {
  struct Names : OptionVisitor {
    void option(const Option& option) override { all.emplace_back(option.name()); }
    std::vector<std::string> all;
  } names;
  Options options;
  Options::visit(options, static_cast<OptionVisitor&>(names));
  return names.all;
}

template <class T>
struct Option::Of {
  static constexpr bool kInteger = std::is_integral_v<T> && !std::is_same_v<T, bool>;
  static constexpr bool kNumber = std::is_floating_point_v<T>;
  static constexpr Type kType = std::is_same_v<T, bool> ? Type::boolean
                                : kInteger              ? Type::integer
                                : kNumber               ? Type::number
                                : std::is_enum_v<T>     ? Type::choice
                                : TextOption<T>         ? Type::name
                                                        : Type::text;
  static_assert(kType != Type::text || std::is_same_v<T, std::string>);

  static const T& at(const void* value) { return *static_cast<const T*>(value); }

  static std::vector<std::string> choices() {
    if constexpr (std::is_enum_v<T>) return options_detail::names_of<T>();
    return {};
  }
  static boost::json::value json(const void* value) {
    if constexpr (kNumber) {
      return options_detail::exact_number(at(value));
    } else if constexpr (std::is_arithmetic_v<T>) {
      return at(value);
    } else {
      return boost::json::string(text(value));
    }
  }
  static std::string text(const void* value) {
    if constexpr (std::is_same_v<T, bool>) {
      return at(value) ? "true" : "false";
    } else if constexpr (kInteger) {
      return std::to_string(at(value));
    } else if constexpr (kNumber) {
      return options_detail::short_number(at(value));
    } else if constexpr (std::is_enum_v<T>) {
      return std::string(enum_name(at(value)));
    } else if constexpr (TextOption<T>) {
      return at(value).text();
    } else {
      return at(value);
    }
  }
  static void set_json(std::string_view label, const boost::json::value& from, void* value) {
    using namespace options_detail;
    if constexpr (std::is_same_v<T, bool>) {
      set(value, to_bool(label, from));
    } else if constexpr (kInteger) {
      set(value, checked_integer<T>(label, to_integer(label, from)));
    } else if constexpr (kNumber) {
      set(value, static_cast<T>(to_number(label, from)));
    } else {
      set(value, parsed(label, to_text(label, from)));
    }
  }
  static void set_text(std::string_view label, std::string_view from, Range range, void* value) {
    using namespace options_detail;
    if constexpr (std::is_same_v<T, bool>) {
      set(value, parse_bool(label, from));
    } else if constexpr (kInteger) {
      const std::int64_t integer = parse_integer(label, from);
      check_range(label, static_cast<double>(integer), range);
      set(value, checked_integer<T>(label, integer));
    } else if constexpr (kNumber) {
      const double number = parse_number(label, from);
      check_range(label, number, range);
      set(value, static_cast<T>(number));
    } else {
      set(value, parsed(label, from));
    }
  }
  static void check(std::string_view label, Range range, const void* value) {
    if constexpr (kInteger || kNumber) {
      options_detail::check_range(label, static_cast<double>(at(value)), range);
    } else if constexpr (std::is_same_v<T, std::string>) {
      options_detail::require_utf8(label, at(value));
    }
  }

 private:
  static void set(void* value, T what) { *static_cast<T*>(value) = std::move(what); }
  static T parsed(std::string_view label, std::string_view text) {
    if constexpr (std::is_enum_v<T>) {
      return parse_enum<T>(label, text);
    } else if constexpr (TextOption<T>) {
      return T::parse(label, text);
    } else {
      return T(text);
    }
  }
};

}  // namespace perennial
