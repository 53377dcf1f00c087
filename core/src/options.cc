// SPDX-License-Identifier: Apache-2.0
// Options: reading, writing and checking one value, and the visitors.
#include "perennial/core/options.h"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <charconv>
#include <cmath>

#include "perennial/core/text.h"

namespace perennial {

namespace json = boost::json;

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : known) {
    std::vector<std::size_t> row(candidate.size() + 1);
    for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= name.size(); ++i) {
      std::size_t diagonal = row[0];
      row[0] = i;
      for (std::size_t j = 1; j <= candidate.size(); ++j) {
        const std::size_t substituted = diagonal + (name[i - 1] != candidate[j - 1] ? 1 : 0);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

namespace options_detail {

namespace {

[[noreturn]] void throw_wrong_type(std::string_view label, const char* expected,
                                   const json::value& found) {
  throw InvalidOptions(std::string(label) + " must be " + expected + ", not " +
                       json::serialize(found));
}

[[noreturn]] void throw_wrong_text(std::string_view label, std::string_view text,
                                   const char* expected) {
  throw InvalidOptions(std::string(label) + " is '" + std::string(text) + "'; " + expected +
                       " was expected");
}

template <class T>
bool parse_whole(std::string_view text, T& value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && stop == end;
}

}  // namespace

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void throw_unknown(std::string_view what, std::string_view name,
                   const std::vector<std::string>& known) {
  std::string message = "unknown " + std::string(what) + " '" + std::string(name) + "'";
  const std::string nearest = nearest_name(name, known);
  message += nearest.empty() ? "; known: " + join(known) : "; did you mean '" + nearest + "'?";
  throw InvalidOptions(message);
}

void check_range(std::string_view label, double value, Range range) {
  if (value >= range.min && value <= range.max) return;
  throw InvalidOptions(std::string(label) + " is " + short_number(value) +
                       "; allowed: " + short_number(range.min) + " to " + short_number(range.max));
}

void require_utf8(std::string_view label, std::string_view text) {
  if (invalid_utf8(text) == text.npos) return;
  throw InvalidOptions(std::string(label) + " is '" + valid_utf8(text) +
                       "', which is not UTF-8 and could not be stored; rename what it names");
}

bool to_bool(std::string_view label, const json::value& value) {
  if (!value.is_bool()) throw_wrong_type(label, "true or false", value);
  return value.get_bool();
}

std::int64_t to_integer(std::string_view label, const json::value& value) {
  if (value.is_int64()) return value.get_int64();
  if (value.is_uint64() && std::in_range<std::int64_t>(value.get_uint64())) {
    return static_cast<std::int64_t>(value.get_uint64());
  }
  throw_wrong_type(label, "an integer", value);
}

double to_number(std::string_view label, const json::value& value) {
  if (value.is_double()) return value.get_double();
  if (value.is_int64()) return static_cast<double>(value.get_int64());
  if (value.is_uint64()) return static_cast<double>(value.get_uint64());
  double number = 0;
  if (value.is_string() && parse_whole(std::string_view(value.get_string()), number)) return number;
  throw_wrong_type(label, "a number", value);
}

std::string_view to_text(std::string_view label, const json::value& value) {
  if (!value.is_string()) throw_wrong_type(label, "a string", value);
  return value.get_string();
}

bool parse_bool(std::string_view label, std::string_view text) {
  if (text != "true" && text != "false") throw_wrong_text(label, text, "true or false");
  return text == "true";
}

std::int64_t parse_integer(std::string_view label, std::string_view text) {
  std::int64_t value = 0;
  if (!parse_whole(text, value)) throw_wrong_text(label, text, "an integer");
  return value;
}

double parse_number(std::string_view label, std::string_view text) {
  double value = 0;
  if (!parse_whole(text, value) || !std::isfinite(value)) {
    throw_wrong_text(label, text, "a number");
  }
  return value;
}

json::value exact_number(double value) {
  const json::value number(value);
  const json::value read_back = json::parse(json::serialize(number));
  if (read_back.is_double() && read_back.get_double() == value) return number;
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return json::value(std::string_view(text.data(), static_cast<std::size_t>(end - text.data())));
}

std::string short_number(double value) {
  std::array<char, 32> text;
  const bool whole = std::abs(value) < 1e15 && value == std::trunc(value);
  const auto end = whole ? std::to_chars(text.data(), text.data() + text.size(),
                                         static_cast<std::int64_t>(value))
                         : std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), end.ptr};
}

}  // namespace options_detail

void ExceptVisitor::option(const Option& option) {
  if (std::ranges::find(names_, option.name()) == names_.end()) inner_.option(option);
}

void ExceptVisitor::begin_group(std::string_view name, std::optional<std::size_t>) {
  throw Error("options of group " + std::string(name) + " cannot be left out one by one");
}

std::string PathVisitor::path_of(std::string_view name) const {
  std::string path;
  for (const std::string& group : groups_) path += group + '.';
  return path.append(name);
}

void PathVisitor::begin_group(std::string_view name, std::optional<std::size_t> index) {
  groups_.emplace_back(name);
  if (index) groups_.back() += '[' + std::to_string(*index) + ']';
}

void ToJsonVisitor::option(const Option& option) {
  if (object.contains(option.name())) {
    throw Error("two options are called " + std::string(option.name()) +
                ", which the flat form cannot tell apart");
  }
  object[option.name()] = option.json();
}

void ToJsonVisitor::begin_group(std::string_view name, std::optional<std::size_t> index) {
  const bool element = index.has_value();
  if (inlined(element)) {
    outer_.push_back({{}, {}, element});
  } else {
    outer_.push_back({std::exchange(object, {}), std::string(name), element});
  }
}

void ToJsonVisitor::end_group() {
  Outer outer = std::move(outer_.back());
  outer_.pop_back();
  if (inlined(outer.element)) return;
  std::swap(object, outer.object);
  if (outer.element) {
    arrays_.back().push_back(std::move(outer.object));
  } else {
    object[outer.name] = std::move(outer.object);
  }
}

std::size_t ToJsonVisitor::begin_groups(std::string_view name, std::size_t size) {
  arrays_.emplace_back();
  array_names_.emplace_back(name);
  return size;
}

void ToJsonVisitor::end_groups() {
  object[array_names_.back()] = std::move(arrays_.back());
  arrays_.pop_back();
  array_names_.pop_back();
}

FromJsonVisitor::FromJsonVisitor(const json::object& object) : levels_{{&object}}, open_{{0}} {}

void FromJsonVisitor::option(const Option& option) {
  const std::string path = path_of(option.name());
  // In the object of its own group, or, in the flat form, of a group around it.
  for (std::size_t i = open_.size(); i-- > 0;) {
    Level& at = levels_[open_[i].level];
    if (at.groups.contains(option.name())) continue;
    const auto [asked, first] = at.asked.try_emplace(std::string(option.name()), path);
    if (const json::value* found = at.object->if_contains(option.name())) {
      if (!first) {
        throw InvalidOptions("key '" + at.path + std::string(option.name()) + "' may mean " +
                             asked->second + " or " + path + "; write it in its group");
      }
      return option.set_json(path, *found);
    }
    if (open_[i].element) return;
    while (i > 0 && open_[i - 1].level == open_[i].level) --i;
  }
}

void FromJsonVisitor::begin_group(std::string_view name, std::optional<std::size_t> index) {
  static const json::object kNothing;
  const json::value* shown = nullptr;
  if (index) {
    if (arrays_.back() != nullptr) shown = &arrays_.back()->at(*index);
  } else {
    level().groups.emplace(name);
    shown = level().object->if_contains(name);
  }
  PathVisitor::begin_group(name, index);
  if (shown == nullptr && !index) {
    open_.push_back({open_.back().level, open_.back().element});
    return;
  }
  if (shown != nullptr && !shown->is_object()) {
    std::string path = path_of("");
    path.pop_back();
    throw InvalidOptions(path + " must be an object, not " + json::serialize(*shown));
  }
  levels_.push_back({shown == nullptr ? &kNothing : &shown->get_object(), path_of("")});
  open_.push_back({levels_.size() - 1, index.has_value()});
}

void FromJsonVisitor::end_group() {
  PathVisitor::end_group();
  open_.pop_back();
}

std::size_t FromJsonVisitor::begin_groups(std::string_view name, std::size_t size) {
  level().groups.emplace(name);
  const json::value* found = level().object->if_contains(name);
  if (found != nullptr && !found->is_array()) {
    throw InvalidOptions(path_of(name) + " must be an array, not " + json::serialize(*found));
  }
  arrays_.push_back(found == nullptr ? nullptr : &found->get_array());
  return found == nullptr ? size : found->get_array().size();
}

void FromJsonVisitor::end_groups() { arrays_.pop_back(); }

void FromJsonVisitor::refuse_unknown() const {
  for (const Level& level : levels_) {
    for (const auto& entry : *level.object) {
      const std::string_view found = entry.key();
      if (level.asked.contains(found) || level.groups.contains(found)) continue;
      std::vector<std::string> known;
      for (const std::string& key : level.groups) known.push_back(level.path + key);
      for (const auto& [key, path] : level.asked) known.push_back(level.path + key);
      options_detail::throw_unknown("key", level.path + std::string(entry.key()), known);
    }
  }
}

}  // namespace perennial
