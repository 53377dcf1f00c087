// SPDX-License-Identifier: Apache-2.0
// One declaration per option: the visitors that turn an options struct into JSON, read it back, and
// check it. The command line makes its flags and help from the same declarations.
//
// An options struct is an aggregate with a static member template
//   template <class Self, class Visitor> static void visit(Self& self, Visitor& visitor);
// that calls visitor(name, self.field, "what it means, its unit", Range{min, max}) for each field,
// in the order of help. The range is left out for bool, enum and string fields. Enums provide
// enum_names(E) by argument-dependent look-up.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <concepts>
#include <cstdint>
#include <limits>
#include <sstream>
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
[[noreturn]] void throw_out_of_range(std::string_view name, double value, Range range);
[[noreturn]] void throw_wrong_type(std::string_view name, const char* expected,
                                   const boost::json::value& found);
void require_utf8(std::string_view name, std::string_view text);
std::int64_t to_integer(std::string_view name, const boost::json::value& value);
double to_number(std::string_view name, const boost::json::value& value);
// A JSON number when reading it back gives the same double, else its shortest decimal text:
// Boost.JSON parses some numbers one unit in the last place off, which would not do for stored
// options.
boost::json::value exact_number(double value);

template <class E>
std::vector<std::string> names_of() {
  std::vector<std::string> names;
  for (const auto& [value, name] : enum_names(E{})) names.emplace_back(name);
  return names;
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

// Throws InvalidOptions naming the first field that is out of range, or whose text is not UTF-8 and
// could not be stored.
class ValidateVisitor {
 public:
  template <class T>
  void operator()(std::string_view name, const T& value, std::string_view) {
    if constexpr (std::is_same_v<T, std::string>) options_detail::require_utf8(name, value);
  }
  template <class T>
  requires std::is_arithmetic_v<T>
  void operator()(std::string_view name, const T& value, std::string_view, Range range) {
    const auto number = static_cast<double>(value);
    if (!(number >= range.min && number <= range.max)) {
      options_detail::throw_out_of_range(name, number, range);
    }
  }
};

class ToJsonVisitor {
 public:
  template <class T>
  void operator()(std::string_view name, const T& value, std::string_view, Range = {}) {
    if constexpr (std::is_enum_v<T>) {
      object[name] = enum_name(value);
    } else if constexpr (TextOption<T>) {
      object[name] = value.text();
    } else if constexpr (std::is_floating_point_v<T>) {
      object[name] = options_detail::exact_number(value);
    } else {
      object[name] = value;
    }
  }
  boost::json::object object;
};

// Reads the fields that are present; remembers which keys it knows.
class FromJsonVisitor {
 public:
  explicit FromJsonVisitor(const boost::json::object& object) : object_(object) {}

  template <class T>
  void operator()(std::string_view name, T& value, std::string_view, Range = {}) {
    known_.emplace_back(name);
    const boost::json::value* found = object_.if_contains(name);
    if (found == nullptr) return;
    if constexpr (std::is_same_v<T, bool>) {
      if (!found->is_bool()) options_detail::throw_wrong_type(name, "true or false", *found);
      value = found->get_bool();
    } else if constexpr (std::is_enum_v<T>) {
      if (!found->is_string()) options_detail::throw_wrong_type(name, "a string", *found);
      value = parse_enum<T>(name, std::string_view(found->get_string()));
    } else if constexpr (TextOption<T>) {
      if (!found->is_string()) options_detail::throw_wrong_type(name, "a string", *found);
      value = T::parse(name, std::string_view(found->get_string()));
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!found->is_string()) options_detail::throw_wrong_type(name, "a string", *found);
      value = std::string(std::string_view(found->get_string()));
    } else if constexpr (std::is_integral_v<T>) {
      const std::int64_t integer = options_detail::to_integer(name, *found);
      if (!std::in_range<T>(integer)) {
        options_detail::throw_out_of_range(name, static_cast<double>(integer),
                                           {static_cast<double>(std::numeric_limits<T>::min()),
                                            static_cast<double>(std::numeric_limits<T>::max())});
      }
      value = static_cast<T>(integer);
    } else {
      static_assert(std::is_floating_point_v<T>);
      value = static_cast<T>(options_detail::to_number(name, *found));
    }
  }
  // Throws InvalidOptions for the first key no field took.
  void refuse_unknown() const;

 private:
  const boost::json::object& object_;
  std::vector<std::string> known_;
};

template <class Options>
boost::json::object to_json(const Options& options) {
  ToJsonVisitor visitor;
  Options::visit(options, visitor);
  return std::move(visitor.object);
}

// Fields that are absent keep their defaults; unknown keys are refused with the nearest known name.
template <class Options>
Options from_json(const boost::json::object& object) {
  Options options;
  FromJsonVisitor visitor(object);
  Options::visit(options, visitor);
  visitor.refuse_unknown();
  return options;
}

template <class Options>
void validate_ranges(const Options& options) {
  ValidateVisitor visitor;
  Options::visit(options, visitor);
}

}  // namespace perennial
